//! The content store: layers unpacked once and shared, images by name.
//!
//! [`layout`] owns the directory and what is whole in it; [`records`] are its JSON files; [`pull`] brings an image in, [`prune`] removes it.
//! [`ImageStore`] is the handle the agent keeps. Several processes may use one directory at a time.

mod layout;
mod prune;
mod pull;
mod records;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::ImageConfig;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::durations::Durations;
use crate::error::{Error, SharedError};
use crate::flight::Flights;
use crate::manifest::Platform;
use crate::progress::ProgressFn;
use crate::reference::{Reference, RegistryLocation};
use crate::registry::{RegistryClient, RegistryOptions};
use crate::rootfs::{LayerPath, RootFs, RootFsError};
use crate::unpack::UnpackLimits;
use layout::Layout;
pub use prune::Pruned;
use pull::FlightKey;

/// Images of one agent. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Where images come from that name no registry: `--docker_registry`.
    pub registry: RegistryLocation,
    /// How patient pulls from registries are.
    pub registry_options: RegistryOptions,
    /// Who one is for registries, unless a pull says otherwise.
    pub credentials: Arc<Credentials>,
    /// How much a layer may hold.
    pub limits: UnpackLimits,
    /// What kind of machine images are for.
    pub platform: Platform,
    /// Layers fetched and unpacked at a time, in the whole store.
    pub parallel_layers: usize,
}

/// Settings of one pull.
#[derive(Clone)]
pub struct PullOptions {
    /// Whether an image that is in the store is good enough (Mesos' `Image.cached`, and its default). Otherwise the
    /// registry is asked, and what layers the store has are not fetched again.
    pub cached: bool,
    /// Who one is for registries, instead of whom the store's options name.
    pub credentials: Option<Arc<Credentials>>,
    /// Hears how the layers come along.
    pub progress: Option<ProgressFn>,
}

/// An image whose layers are all in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of the image's config; Docker calls it the image id.
    pub id: Digest,
    /// The digest of its manifest, if it came with one.
    pub manifest: Option<Digest>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerPath>,
    /// How it wants to be run.
    pub config: ImageConfig,
}

/// A name under which the store has an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The whole name, with registry and tag or digest; or the path of an archive.
    pub name: String,
    /// The image's id.
    pub id: Digest,
    /// The digest of its manifest, if it came with one.
    pub manifest: Option<Digest>,
}

struct Inner {
    options: StoreOptions,
    layout: Layout,
    client: RegistryClient,
    images: Flights<FlightKey, Result<Arc<Image>, SharedError>>,
    layers: Flights<Digest, Result<(), SharedError>>,
    /// Turns to fetch and unpack a layer.
    turns: Semaphore,
    /// How long pulls took.
    pulls: Durations,
}

// === impl ImageStore ===

impl ImageStore {
    /// Opens the store in the directory `root` (`--docker_store_dir`), creating it if need be, and removes what an
    /// interrupted process left unfinished. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When the directory cannot be created, read or locked.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self, Error> {
        let layout = Layout::open(root)?;
        let client = RegistryClient::new(options.registry_options.clone());
        let turns = Semaphore::new(options.parallel_layers.max(1));
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                layout,
                client,
                images: Flights::new(),
                layers: Flights::new(),
                turns,
                pulls: Durations::default(),
            }),
        })
    }

    /// Makes the image available: finds it, fetches the layers that the store lacks, and remembers it by its name.
    ///
    /// Callers that want the same image at the same time share one pull. A caller that drops the future leaves it to
    /// the others; when the last one leaves, the pull stops and what it had begun is removed.
    ///
    /// # Errors
    /// When the image cannot be found, fetched, verified or unpacked. The store is whole in any case.
    pub async fn pull(&self, reference: &Reference, options: PullOptions) -> Result<Arc<Image>, SharedError> {
        pull::pull(self.inner.clone(), reference, options).await
    }

    /// How long each pull took, whether it succeeded or not; images that were in the store already do not count.
    #[must_use]
    pub fn pulls(&self) -> Durations {
        self.inner.pulls.clone()
    }

    /// The directories that make the image's root file system, for an overlay mount or a copy.
    ///
    /// # Errors
    /// When the image has more layers than overlayfs can stack.
    pub fn provision(&self, image: &Image) -> Result<RootFs, RootFsError> {
        RootFs::new(&image.layers, self.inner.layout.empty())
    }

    /// The same of an image without layers: a directory that is empty.
    #[must_use]
    pub fn no_layers(&self) -> RootFs {
        RootFs::empty(self.inner.layout.empty())
    }

    /// The images in the store, by name. Blocks for a short while.
    ///
    /// # Errors
    /// When the store's directory cannot be read.
    pub fn list(&self) -> Result<Vec<StoredImage>, Error> {
        let records = self.inner.layout.references()?;
        let mut images: Vec<_> = records
            .into_iter()
            .map(|record| StoredImage { name: record.name, id: record.image, manifest: record.manifest })
            .collect();
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }
}

// === impl StoreOptions ===

impl Default for StoreOptions {
    /// Docker Hub, this machine's platform, and as many layers at a time as Docker fetches or as there are processors.
    fn default() -> Self {
        Self {
            registry: RegistryLocation::default(),
            registry_options: RegistryOptions::default(),
            credentials: Arc::default(),
            limits: UnpackLimits::default(),
            platform: Platform::host(),
            parallel_layers: std::thread::available_parallelism()
                .map_or(3, |processors| processors.get().max(3)),
        }
    }
}

// === impl PullOptions ===

impl Default for PullOptions {
    fn default() -> Self {
        Self { cached: true, credentials: None, progress: None }
    }
}
