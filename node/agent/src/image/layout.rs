//! The image store: an OCI image layout (image-spec, image-layout.md), with each layer unpacked once beside it.
//!
//! Blobs are named by their digest; an unpacked layer by its chain id (image-spec, config.md), because folders that a layer leaves out take
//! their owner from the layers below it. Everything appears by renaming something complete, so a crash leaves nothing partial.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

pub use berth_layer::Limits;
use berth_layer::UnpackError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::blob::BlobWriter;
use super::document::{ConfigFile, Descriptor, ImageConfig, Index, Manifest, chain_ids};
use super::pull;
use super::reference::{Digest, Reference};

/// Largest manifest or configuration: what registries take.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of one image; overlayfs and the rootfs helper take no more.
pub(crate) const MAX_LAYERS: usize = 118;

/// The annotation with an image's name in an index.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The store.
#[derive(Debug)]
pub struct Layout {
    pub(super) root: PathBuf,
    limits: Limits,
    /// Guards index.json and the decision to unpack or delete a layer.
    pub(super) index: Mutex<()>,
    /// One unpacking at a time a layer.
    unpacking: Mutex<()>,
    /// Held shared by processes that add to another process' store: nothing is cleared or collected meanwhile.
    _joined: Option<File>,
    temporary: AtomicU64,
}

/// An image that is on the node, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its manifest.
    pub digest: Digest,
    /// What its configuration says about processes.
    pub config: ImageConfig,
    /// Folders of its layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Bytes of its blobs.
    pub size_bytes: u64,
}

/// The store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file of the store.
    #[error("the image store's {} cannot be {action}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A blob's content does not have the digest that its name says.
    #[error(
        "a blob of the image has the digest {found} instead of {wanted}: the registry or archive is broken or lies"
    )]
    Digest {
        /// What the manifest says.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// A blob does not have the size that its descriptor says.
    #[error("a blob of the image has {found} bytes instead of {wanted}: the registry or archive is broken or lies")]
    Size {
        /// What the manifest says.
        wanted: u64,
        /// What came, at least.
        found: u64,
    },
    /// The uncompressed layer is not the one that the configuration names.
    #[error("a layer of the image has the diff id {found} instead of {wanted}: the image is broken or hostile")]
    DiffId {
        /// What the configuration says.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// A JSON document that cannot be read.
    #[error("the image's {what} cannot be read")]
    Document {
        /// Which document.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Something the node cannot use.
    #[error("the image cannot be used: {0}")]
    Unusable(String),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

impl Layout {
    /// Opens the store at `root`, making it when it is new, and clears what a crash left half done.
    ///
    /// # Errors
    /// When the files cannot be made.
    pub fn open(root: impl Into<PathBuf>, limits: Limits) -> Result<Self, LayoutError> {
        let layout = Self::make(root.into(), limits)?;
        if let Some(_alone) = layout.lock("lock", FlockOperation::NonBlockingLockExclusive)? {
            layout.clear()?;
        }
        Ok(layout)
    }

    /// Opens the store beside the server that may have it open, to add to it or read it.
    ///
    /// # Errors
    /// When the files cannot be made.
    pub fn join(root: impl Into<PathBuf>, limits: Limits) -> Result<Self, LayoutError> {
        let layout = Self::make(root.into(), limits)?;
        let joined = layout.lock("lock", FlockOperation::LockShared)?;
        Ok(Self { _joined: joined, ..layout })
    }

    fn make(root: PathBuf, limits: Limits) -> Result<Self, LayoutError> {
        let layout = Self {
            root,
            limits,
            index: Mutex::new(()),
            unpacking: Mutex::new(()),
            _joined: None,
            temporary: AtomicU64::new(0),
        };
        for folder in ["blobs/sha256", "layers", "used", "tmp"] {
            let path = layout.root.join(folder);
            std::fs::create_dir_all(&path).map_err(|source| LayoutError::File { path, action: "made", source })?;
        }
        let version = layout.root.join("oci-layout");
        if !version.exists() {
            layout.write_whole(&version, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(layout)
    }

    /// Removes what a crash left half done.
    fn clear(&self) -> Result<(), LayoutError> {
        let tmp = self.root.join("tmp");
        let leftovers = std::fs::read_dir(&tmp).map_err(|source| LayoutError::File {
            path: tmp.clone(),
            action: "listed",
            source,
        })?;
        for entry in leftovers.flatten() {
            let path = entry.path();
            berth_layer::remove::tree(&path)
                .or_else(|_| std::fs::remove_file(&path))
                .map_err(|source| LayoutError::File { path, action: "removed", source })?;
        }
        Ok(())
    }

    /// A lock between processes, held until the file is dropped; `None` if `operation` does not wait and another process has the lock.
    pub(super) fn lock(&self, name: &str, operation: FlockOperation) -> Result<Option<File>, LayoutError> {
        let path = self.root.join(name);
        let error = |source| LayoutError::File { path: path.clone(), action: "locked", source };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(error)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(error(errno.into())),
        }
    }

    /// A path of its own below `tmp`, which is cleared when the store is opened.
    pub(super) fn temporary(&self) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!("tmp/{}-{number}", std::process::id()))
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
        let temporary = self.temporary();
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(|source| LayoutError::File { path: path.to_owned(), action: "written", source })
    }

    /// Where a blob lies, or will.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Begins a blob; it becomes visible by [`BlobWriter::finish`].
    pub(crate) fn blob_writer(&self) -> Result<BlobWriter, LayoutError> {
        BlobWriter::begin(self.temporary())
    }

    /// Keeps a blob that is what its descriptor says.
    pub(crate) fn keep(&self, writer: BlobWriter, digest: &Digest, size: Option<u64>) -> Result<(), LayoutError> {
        writer.finish(&self.blob_path(digest), digest, size)
    }

    /// Keeps bytes as a blob.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, LayoutError> {
        let digest = Digest::of(bytes);
        self.write_whole(&self.blob_path(&digest), bytes)?;
        Ok(digest)
    }

    /// Reads a small blob and checks that it is what it should be.
    pub(crate) fn document(&self, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes))
            .map_err(|source| LayoutError::File { path, action: "read", source })?;
        let found = Digest::of(&bytes);
        if found == *digest { Ok(bytes) } else { Err(LayoutError::Digest { wanted: *digest, found }) }
    }

    pub(super) fn read_index(&self) -> Result<Index, LayoutError> {
        let path = self.root.join("index.json");
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| LayoutError::Document { what: "index.json", source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Index { schema_version: 2, manifests: Vec::new() })
            }
            Err(source) => Err(LayoutError::File { path, action: "read", source }),
        }
    }

    /// Gives a manifest a name; the name's former manifest loses it.
    pub(crate) fn tag(&self, reference: &Reference, manifest: Digest) -> Result<(), LayoutError> {
        let _guard = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let _among_processes = self.lock("index.lock", FlockOperation::LockExclusive)?;
        let mut index = self.read_index()?;
        let name = reference.to_string();
        index.manifests.retain(|entry| entry.annotations.get(REF_NAME) != Some(&name));
        let size = std::fs::metadata(self.blob_path(&manifest)).map(|m| m.len()).unwrap_or(0);
        index.manifests.push(Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: manifest,
            size,
            urls: Vec::new(),
            annotations: [(REF_NAME.to_owned(), name)].into(),
            platform: None,
        });
        self.write_index(&index)
    }

    pub(super) fn write_index(&self, index: &Index) -> Result<(), LayoutError> {
        let json =
            serde_json::to_vec_pretty(index).map_err(|source| LayoutError::Document { what: "index.json", source })?;
        self.write_whole(&self.root.join("index.json"), &json)
    }

    /// The manifest that this name stands for on the node.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn lookup(&self, reference: &Reference) -> Result<Option<Digest>, LayoutError> {
        if let Some(digest) = reference.digest {
            return Ok(self.blob_path(&digest).exists().then_some(digest));
        }
        let name = reference.to_string();
        let index = self.read_index()?;
        Ok(index
            .manifests
            .iter()
            .find(|entry| entry.annotations.get(REF_NAME) == Some(&name))
            .map(|entry| entry.digest))
    }

    /// The names on the node, each with the digest of its manifest.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<(String, String)>, LayoutError> {
        let index = self.read_index()?;
        let named = |entry: &Descriptor| Some((entry.annotations.get(REF_NAME)?.clone(), entry.digest.to_string()));
        Ok(index.manifests.iter().filter_map(named).collect())
    }

    /// The image of a manifest, its layers unpacked where they were not. Blocks; long for a new image.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn image(&self, digest: Digest, progress: &dyn Fn(String)) -> Result<Image, LayoutError> {
        let manifest: Manifest = serde_json::from_slice(&self.document(&digest)?)
            .map_err(|source| LayoutError::Document { what: "manifest", source })?;
        let config: ConfigFile = serde_json::from_slice(&self.document(&manifest.config.digest)?)
            .map_err(|source| LayoutError::Document { what: "configuration", source })?;
        for (theirs, ours) in [(&config.os, "linux"), (&config.architecture, pull::architecture())] {
            if !theirs.is_empty() && theirs != ours {
                return Err(LayoutError::Unusable(format!("it is for {theirs}, this machine needs one for {ours}")));
            }
        }
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() || diff_ids.is_empty() || diff_ids.len() > MAX_LAYERS {
            let (layers, ids) = (manifest.layers.len(), diff_ids.len());
            return Err(LayoutError::Unusable(format!(
                "it has {layers} layers and {ids} diff ids; 1 to {MAX_LAYERS} of both are needed"
            )));
        }
        let mut layers: Vec<PathBuf> = Vec::new();
        let chain = chain_ids(&diff_ids);
        for (number, ((descriptor, diff_id), id)) in manifest.layers.iter().zip(&diff_ids).zip(chain).enumerate() {
            let path = self.root.join("layers").join(id.hex());
            if !path.exists() {
                progress(format!("unpacking layer {} of {}", number + 1, diff_ids.len()));
                self.unpack(&descriptor.digest, diff_id, &path, &layers)?;
            }
            layers.insert(0, path);
        }
        let size_bytes = manifest.layers.iter().map(|layer| layer.size).sum();
        self.touch(&digest);
        Ok(Image { digest, config: config.config.unwrap_or_default(), layers, size_bytes })
    }

    fn unpack(&self, blob: &Digest, diff_id: &Digest, path: &Path, below: &[PathBuf]) -> Result<(), LayoutError> {
        let _guard = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
        if path.exists() {
            return Ok(());
        }
        let blob_path = self.blob_path(blob);
        let archive = File::open(&blob_path).and_then(berth_layer::decompress).map_err(|source| LayoutError::File {
            path: blob_path,
            action: "read",
            source,
        })?;
        let temporary = self.temporary();
        std::fs::create_dir(&temporary).map_err(|source| LayoutError::File {
            path: temporary.clone(),
            action: "made",
            source,
        })?;
        let unpacked = berth_layer::unpack(archive, &temporary, below, self.limits)
            .map_err(LayoutError::from)
            .and_then(|unpacked| match Digest::from_bytes(unpacked.diff_id) {
                found if found == *diff_id => Ok(()),
                found => Err(LayoutError::DiffId { wanted: *diff_id, found }),
            })
            .and_then(|()| {
                // Otherwise a power cut could keep the name and lose the content.
                File::open(&temporary)
                    .and_then(|folder| rustix::fs::syncfs(&folder).map_err(io::Error::from))
                    .and_then(|()| std::fs::rename(&temporary, path))
                    .map_err(|source| LayoutError::File { path: path.to_owned(), action: "made", source })
            });
        if unpacked.is_err()
            && let Err(error) = berth_layer::remove::tree(&temporary)
        {
            tracing::warn!(path = %temporary.display(), %error, "a half unpacked layer stays until the next start");
        }
        unpacked
    }

    /// Notes that the image is in use now, for [`Self::collect`].
    fn touch(&self, digest: &Digest) {
        let path = self.root.join("used").join(digest.hex());
        if let Err(error) = File::create(&path) {
            tracing::warn!(path = %path.display(), %error, "the time of an image's last use cannot be noted");
        }
    }
}
