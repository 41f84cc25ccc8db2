//! Documents beside blobs that are elsewhere.

use async_trait::async_trait;
use kiln_images::blobs::{Blobs, ByteStream, Error, InMemory};
use kiln_images::digest::Digest;
use kiln_images::manifest::{Descriptor, Document};

/// Documents in memory, and blobs elsewhere.
pub struct Beside<'a> {
    known: Vec<Digest>,
    own: InMemory,
    elsewhere: &'a dyn Blobs,
}

impl<'a> Beside<'a> {
    /// These documents, and those blobs.
    pub fn new<'d>(documents: impl IntoIterator<Item = &'d Document>, elsewhere: &'a dyn Blobs) -> Self {
        let (mut known, mut own) = (Vec::new(), InMemory::default());
        for document in documents {
            known.push(document.descriptor.digest);
            own.add(document);
        }
        Self { known, own, elsewhere }
    }
}

#[async_trait]
impl Blobs for Beside<'_> {
    fn place(&self) -> String {
        self.elsewhere.place()
    }

    async fn open(&self, descriptor: &Descriptor) -> Result<ByteStream, Error> {
        if self.known.contains(&descriptor.digest) {
            return self.own.open(descriptor).await;
        }
        self.elsewhere.open(descriptor).await
    }
}
