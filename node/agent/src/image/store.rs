//! Images by name, for workspaces: on the node already, pulled, or built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_http::outbound::Guard;
use berth_http::problem::chain;
use berth_layer::Limits;

use super::base::{self, BaseError};
use super::layout::{Image, Layout, LayoutError};
use super::pull::{self, PullError};
use super::reference::{Digest, Reference, ReferenceError};

/// Tells how far a long step is.
pub type Progress = Arc<dyn Fn(String) + Send + Sync>;

/// The node's images.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// Images that were mounted since this process started, by name: a start from one of them reads no file.
    ready: Mutex<BTreeMap<Reference, (Image, Instant)>>,
    /// One fetch at a time for a name: a hundred starts of a new image pull it once.
    fetching: tokio::sync::Mutex<BTreeMap<Reference, Arc<tokio::sync::Mutex<()>>>>,
    /// Read while images are looked at or fetched, written while unused ones are removed.
    collecting: tokio::sync::RwLock<()>,
    refresh_after: Duration,
}

/// Why the image of a workspace is not available.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Pulling it.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// Building the base image.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The store.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It exists on this node only, and does not.
    #[error(
        "the image {0} is not on this node, and names under berth/ are in no registry: import it with `berth image import`"
    )]
    NotHere(String),
    /// The disk's image is gone.
    #[error(
        "the image {0}, which the workspace's disk was made with, is not on this node any more and has no name to pull it by"
    )]
    Lost(Digest),
    /// A thread died.
    #[error("unpacking the image {0} was interrupted")]
    Broken(String),
}

impl ImageStore {
    /// Opens the store. A tag that was looked up within `refresh_after` is not asked for again.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn open(root: PathBuf, limits: Limits, refresh_after: Duration) -> Result<Self, LayoutError> {
        let layout = Layout::open(root, limits)?;
        let inner = Inner {
            layout,
            ready: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            collecting: tokio::sync::RwLock::default(),
            refresh_after,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image under this name, pulled or built when it is not there.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn get(&self, name: &str, guard: &Guard, progress: Progress) -> Result<Image, ImageError> {
        let reference: Reference = name.parse()?;
        if let Some(image) = self.ready(&reference) {
            return Ok(image);
        }
        let _held = self.inner.collecting.read().await;
        let lock = self.inner.fetching.lock().await.entry(reference.clone()).or_default().clone();
        let _alone = lock.lock().await;
        if let Some(image) = self.ready(&reference) {
            return Ok(image);
        }
        let digest = self.fetch(&reference, guard, &progress).await?;
        let image = self.image(digest, progress, name).await?;
        self.lock_ready().insert(reference, (image.clone(), Instant::now()));
        Ok(image)
    }

    /// The image with this manifest: what a disk began with.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn by_digest(&self, digest: Digest, progress: Progress) -> Result<Image, ImageError> {
        if let Some((image, _)) = self.lock_ready().values().find(|(image, _)| image.digest == digest) {
            return Ok(image.clone());
        }
        let _held = self.inner.collecting.read().await;
        if !self.inner.layout.blob_path(&digest).exists() {
            return Err(ImageError::Lost(digest));
        }
        self.image(digest, progress, &digest.to_string()).await
    }

    fn lock_ready(&self) -> std::sync::MutexGuard<'_, BTreeMap<Reference, (Image, Instant)>> {
        self.inner.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self, reference: &Reference) -> Option<Image> {
        let (image, since) = self.lock_ready().get(reference).cloned()?;
        let current = if reference.digest.is_some() {
            true
        } else if reference.is_local() {
            // `berth image import` may have given the name to another image.
            self.inner.layout.lookup(reference).is_ok_and(|now| now == Some(image.digest))
        } else {
            since.elapsed() < self.inner.refresh_after
        };
        current.then_some(image)
    }

    async fn fetch(&self, reference: &Reference, guard: &Guard, progress: &Progress) -> Result<Digest, ImageError> {
        let here = self.inner.layout.lookup(reference)?;
        if reference.is_local() {
            if *reference == base::reference() {
                let (inner, progress) = (self.inner.clone(), progress.clone());
                return tokio::task::spawn_blocking(move || base::ensure(&inner.layout, &|text| progress(text)))
                    .await
                    .map_err(|_| ImageError::Broken(reference.to_string()))?
                    .map_err(ImageError::from);
            }
            return here.ok_or_else(|| ImageError::NotHere(reference.to_string()));
        }
        match (here, reference.digest) {
            (Some(digest), Some(_)) => Ok(digest),
            (Some(digest), None) => match pull::resolve(&self.inner.layout, guard, reference).await {
                Ok(newest) if newest == digest => Ok(digest),
                Ok(_) => Ok(pull::pull(&self.inner.layout, guard, reference, progress.as_ref()).await?),
                // The image that is here is better than no workspace. That the registry refuses, however, is an answer.
                Err(error) if error.is_away() => {
                    progress(format!("as it is on the node, since its registry cannot be asked: {}", chain(&error)));
                    Ok(digest)
                }
                Err(error) => Err(error.into()),
            },
            (None, _) => Ok(pull::pull(&self.inner.layout, guard, reference, progress.as_ref()).await?),
        }
    }

    async fn image(&self, digest: Digest, progress: Progress, name: &str) -> Result<Image, ImageError> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.layout.image(digest, &|text| progress(text)))
            .await
            .map_err(|_| ImageError::Broken(name.to_owned()))?
            .map_err(ImageError::from)
    }

    /// Takes an image in from a file, under a name.
    ///
    /// # Errors
    /// See [`super::import::ImportError`].
    pub async fn import(&self, source: PathBuf, reference: Reference) -> Result<Digest, super::import::ImportError> {
        let _held = self.inner.collecting.read().await;
        let inner = self.inner.clone();
        let name = reference.clone();
        let path = source.clone();
        let digest = tokio::task::spawn_blocking(move || super::import::import(&inner.layout, &source, &reference))
            .await
            .map_err(|_| super::import::ImportError::NotAnImage {
                path,
                why: "reading it was interrupted".to_owned(),
            })??;
        self.lock_ready().remove(&name);
        Ok(digest)
    }

    /// Removes what nothing uses: see [`Layout::collect`]. `keep` are the images of disks and of running workspaces.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub async fn collect(&self, mut keep: BTreeSet<Digest>, min_age: Duration) -> Result<u64, ImageError> {
        let _alone = self.inner.collecting.write().await;
        if let Some(base) = self.inner.layout.lookup(&base::reference())? {
            keep.insert(base);
        }
        self.lock_ready().retain(|_, (image, _)| keep.contains(&image.digest));
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.layout.collect(&keep, min_age))
            .await
            .map_err(|_| ImageError::Broken("unused images".to_owned()))?
            .map_err(ImageError::from)
    }
}
