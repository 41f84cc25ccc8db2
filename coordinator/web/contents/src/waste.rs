//! The space that an image's layers waste: files that later layers overwrite or remove, and contents that are there more than once.

use std::collections::{BTreeMap, HashMap};

use kiln_proto::digest::Digest;

use super::{Kind, Listing};

/// One layer of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many files it has.
    pub files: u64,
    /// What they have together.
    pub bytes: u64,
    /// Bytes of files that later layers overwrite or remove: whoever pulls the image gets them, and nobody sees them.
    pub hidden: u64,
    /// Bytes of contents that an earlier file, here or in a layer before, has already.
    pub again: u64,
}

/// A file with its layer, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// From the root.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Where it is.
    pub layer: usize,
    /// Of what is hidden, the layer that hides it; of what is there again, that of the first.
    pub other: Option<usize>,
}

/// All layers of an image.
#[derive(Debug, Default)]
pub struct Waste {
    /// The lowest first.
    pub layers: Vec<Sum>,
    /// The largest files.
    pub largest: Vec<Placed>,
    /// The largest that later layers overwrite or remove.
    pub hidden: Vec<Placed>,
    /// The largest whose content is there already.
    pub again: Vec<Placed>,
}

impl Waste {
    /// Compares layers, the lowest first; at most so many of each list.
    pub fn of(layers: &[impl AsRef<Listing>], most: usize) -> Self {
        let mut waste = Self { layers: vec![Sum::default(); layers.len()], ..Self::default() };
        // What is visible so far, in the order of paths: what is below a directory is together.
        let mut visible: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        let mut first: HashMap<Digest, usize> = HashMap::new();
        for (number, listing) in layers.iter().enumerate() {
            let mut own: Vec<(&str, u64)> = Vec::new();
            for entry in &listing.as_ref().entries {
                let below = entry.path.is_empty().then(String::new).unwrap_or_else(|| format!("{}/", entry.path));
                match entry.kind {
                    Kind::Directory => waste.hide(&mut visible, &entry.path, None, number),
                    Kind::Emptied => waste.hide(&mut visible, "", Some(&below), number),
                    Kind::Removed | Kind::Other => waste.hide(&mut visible, &entry.path, Some(&below), number),
                    Kind::File(digest) => {
                        waste.hide(&mut visible, &entry.path, Some(&below), number);
                        own.push((&entry.path, digest.size));
                        let (path, size) = (entry.path.clone(), digest.size);
                        let Some(sum) = waste.layers.get_mut(number) else { continue };
                        (sum.files, sum.bytes) = (sum.files.saturating_add(1), sum.bytes.saturating_add(size));
                        let before = *first.entry(digest).or_insert(usize::MAX);
                        if before == usize::MAX {
                            first.insert(digest, number);
                        } else if size > 0 {
                            sum.again = sum.again.saturating_add(size);
                            waste.again.push(Placed { path: path.clone(), size, layer: number, other: Some(before) });
                        }
                        waste.largest.push(Placed { path, size, layer: number, other: None });
                    }
                }
            }
            // A layer's own whiteouts are about the layers before.
            visible.extend(own.into_iter().map(|(path, size)| (path.to_owned(), (number, size))));
        }
        for list in [&mut waste.largest, &mut waste.hidden, &mut waste.again] {
            list.sort_by(|one, other| (other.size, &one.path).cmp(&(one.size, &other.path)));
            list.truncate(most);
        }
        waste
    }

    /// The file at a path, and what is below it, are not seen any more.
    fn hide(&mut self, visible: &mut BTreeMap<String, (usize, u64)>, path: &str, below: Option<&str>, by: usize) {
        let mut gone: Vec<String> = visible.contains_key(path).then(|| path.to_owned()).into_iter().collect();
        if let Some(below) = below {
            let after = visible.range(below.to_owned()..).map(|(path, _)| path);
            gone.extend(after.take_while(|path| path.starts_with(below)).cloned());
        }
        for path in gone {
            let Some((layer, size)) = visible.remove(&path) else { continue };
            if let Some(sum) = self.layers.get_mut(layer) {
                sum.hidden = sum.hidden.saturating_add(size);
            }
            if size > 0 {
                self.hidden.push(Placed { path, size, layer, other: Some(by) });
            }
        }
    }

    /// Bytes of all layers together.
    pub fn sum(&self) -> Sum {
        self.layers.iter().fold(Sum::default(), |all, one| Sum {
            files: all.files.saturating_add(one.files),
            bytes: all.bytes.saturating_add(one.bytes),
            hidden: all.hidden.saturating_add(one.hidden),
            again: all.again.saturating_add(one.again),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tests::layer;

    fn found(list: &[Placed]) -> Vec<(&str, usize, Option<usize>)> {
        list.iter().map(|one| (one.path.as_str(), one.layer, one.other)).collect()
    }

    #[test]
    fn what_is_overwritten_removed_or_there_twice_is_counted_where_it_is() {
        let layers = [
            layer(&[
                ("lib", None),
                ("lib/a", Some("aaaaaa")),
                ("lib/b", Some("bbbbb")),
                ("library", Some("no")),
                ("tmp/x", Some("xxxx")),
            ]),
            layer(&[("lib", None), ("lib/a", Some("aaaaaa")), (".wh.tmp", Some("")), ("copy", Some("bbbbb"))]),
            layer(&[("lib/.wh..wh..opq", Some("")), ("lib/new", Some("n"))]),
        ];
        let waste = Waste::of(&layers.map(Arc::new), 9);
        assert_eq!(
            found(&waste.hidden),
            [("lib/a", 0, Some(1)), ("lib/a", 1, Some(2)), ("lib/b", 0, Some(2)), ("tmp/x", 0, Some(1))]
        );
        assert_eq!(found(&waste.again), [("lib/a", 1, Some(0)), ("copy", 1, Some(0))]);
        assert_eq!(found(&waste.largest)[..2], [("lib/a", 0, None), ("lib/a", 1, None)]);
        let sums: Vec<(u64, u64, u64, u64)> =
            waste.layers.iter().map(|sum| (sum.files, sum.bytes, sum.hidden, sum.again)).collect();
        assert_eq!(sums, [(4, 17, 15, 0), (2, 11, 6, 11), (1, 1, 0, 0)]);
        assert_eq!(waste.sum().hidden, 21);
    }

    #[test]
    fn a_file_in_place_of_a_directory_hides_what_was_in_it() {
        let layers = [layer(&[("d/a", Some("aa")), ("d/b/c", Some("cc"))]), layer(&[("d", Some("now a file"))])];
        assert_eq!(Waste::of(&layers.map(Arc::new), 9).layers[0].hidden, 4);
    }
}
