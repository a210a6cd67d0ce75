//! Removing images that nothing uses.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::document::{ConfigFile, Manifest, chain_ids};
use super::layout::{Layout, LayoutError};
use super::reference::Digest;

impl Layout {
    /// Removes images that are not in `keep` and were not used for `min_age`, then every blob and layer that no image has any more.
    /// Returns the bytes of the blobs removed. Nothing may be pulled or mounted meanwhile; while another process adds images nothing is removed.
    ///
    /// # Errors
    /// When the index cannot be read or written; a file that cannot be removed is left for the next time.
    pub fn collect(&self, keep: &BTreeSet<Digest>, min_age: Duration) -> Result<u64, LayoutError> {
        let _guard = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(_alone) = self.lock("lock", FlockOperation::NonBlockingLockExclusive)? else { return Ok(0) };
        let mut index = self.read_index()?;
        let before = index.manifests.len();
        index.manifests.retain(|entry| keep.contains(&entry.digest) || self.used_within(&entry.digest, min_age));
        if index.manifests.len() != before {
            self.write_index(&index)?;
        }
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        let mut used: BTreeSet<Digest> = index.manifests.iter().map(|entry| entry.digest).collect();
        used.extend(keep);
        for digest in &used {
            blobs.insert(digest.hex());
            let Ok(manifest) = self.document(digest) else { continue };
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest) else { continue };
            blobs.insert(manifest.config.digest.hex());
            blobs.extend(manifest.layers.iter().map(|layer| layer.digest.hex()));
            let Ok(config) = self.document(&manifest.config.digest) else { continue };
            let Ok(config) = serde_json::from_slice::<ConfigFile>(&config) else { continue };
            layers.extend(chain_ids(&config.rootfs.diff_ids).map(|id| id.hex()));
        }
        let mut freed = 0;
        for (folder, wanted) in [("blobs/sha256", &blobs), ("layers", &layers)] {
            for entry in std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                if wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
                    continue;
                }
                let path = entry.path();
                freed += entry.metadata().map(|m| if m.is_file() { m.len() } else { 0 }).unwrap_or(0);
                let removed =
                    if path.is_dir() { berth_layer::remove::tree(&path) } else { std::fs::remove_file(&path) };
                if let Err(error) = removed {
                    tracing::warn!(path = %path.display(), %error, "an unused part of the image store cannot be removed");
                }
            }
        }
        Ok(freed)
    }

    fn used_within(&self, digest: &Digest, age: Duration) -> bool {
        std::fs::metadata(self.root.join("used").join(digest.hex()))
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.elapsed().ok())
            .is_none_or(|elapsed| elapsed < age)
    }
}
