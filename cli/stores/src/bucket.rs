//! A bucket with S3's protocol, configured with the usual `AWS_…` variables.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kiln_buckets::Address;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};

use super::{Content, Refused, Store};

/// Size of a large object's parts. S3 accepts 10,000 parts.
const PART_BYTES: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Bucket {
    shown: String,
    client: AmazonS3,
    prefix: String,
}

impl Bucket {
    pub(super) fn open(url: &str) -> Result<Self, Refused> {
        let refused =
            |error: kiln_buckets::Error| Refused::Address { place: url.to_owned(), reason: error.to_string() };
        let (client, prefix) = Address::from_env(url).client().map_err(refused)?;
        Ok(Self { shown: url.to_owned(), client, prefix })
    }

    fn path(&self, path: &str) -> Path {
        Path::from(format!("{}{path}", self.prefix))
    }

    fn refused(&self, path: &str, error: &object_store::Error) -> Refused {
        let (place, path, reason) = (self.shown.clone(), path.to_owned(), error.to_string());
        match error {
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
                Refused::Taken { place, path }
            }
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Refused::Denied { place, path, reason: "wrong credentials, or no permission to write there".to_owned() }
            }
            _ => Refused::Failed { place, path, reason },
        }
    }
}

#[async_trait]
impl Store for Bucket {
    async fn size(&self, path: &str) -> Result<Option<u64>, Refused> {
        match self.client.head(&self.path(path)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.refused(path, &error)),
        }
    }

    async fn read(&self, path: &str) -> Result<Option<Bytes>, Refused> {
        let failed = |error: &object_store::Error| self.refused(path, error);
        match self.client.get(&self.path(path)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| failed(&error)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn put(&self, path: &str, content: &Content<'_>) -> Result<(), Refused> {
        let failed = |error: object_store::Error| self.refused(path, &error);
        let broken = |error: kiln_proto::transfer::Error| Refused::Failed {
            place: self.shown.clone(),
            path: path.to_owned(),
            reason: format!("the farm: {error}"),
        };
        let mut pieces = content.open().await.map_err(broken)?;
        if content.size() <= PART_BYTES as u64 {
            let mut data = Vec::with_capacity(content.size() as usize);
            while let Some(piece) = pieces.next().await {
                data.extend_from_slice(&piece.map_err(broken)?);
            }
            return self.client.put(&self.path(path), data.into()).await.map(|_| ()).map_err(failed);
        }
        // A multipart upload becomes visible only when it is complete.
        let upload = self.client.put_multipart(&self.path(path)).await.map_err(failed)?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => {
                    writer.wait_for_capacity(2).await.map_err(failed)?;
                    writer.put(piece);
                }
                Err(error) => {
                    let _ = writer.abort().await;
                    return Err(broken(error));
                }
            }
        }
        writer.finish().await.map(|_| ()).map_err(failed)
    }

    async fn create(&self, path: &str, data: Bytes) -> Result<(), Refused> {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        let put = self.client.put_opts(&self.path(path), data.into(), options).await;
        put.map(|_| ()).map_err(|error| self.refused(path, &error))
    }
}
