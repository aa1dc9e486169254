//! One pull, from a reference to an image whose layers are in the store.
//!
//! In the image's flight: look for the archive or name the registry → what the store remembers is good enough? →
//! resolve to a config and layers → every layer in a flight of its own, several at a time → write the records.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

use super::records::{ImageRecord, ReferenceRecord, Stamp};
use super::{Image, Inner, PullOptions};
use crate::archive::{self, LocalLayer, Wanted};
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::{Error, SharedError};
use crate::manifest::{Descriptor, Resolved};
use crate::pieces::pieces;
use crate::progress::{Phase, Progress, ProgressFn, ProgressHub};
use crate::reference::{NamedReference, Reference, RegistryLocation, RegistryUrl, RemoteImage, Scheme};
use crate::registry::Asker;
use crate::unpack::Expected;

/// Pulls that may share a flight: the same image, and the same content with what the store remembers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FlightKey {
    reference: Reference,
    cached: bool,
    /// What one may have another may not.
    credentials: Arc<Credentials>,
}

/// Where an image was found, and the name under which the store remembers it.
enum Origin {
    Remote(RemoteImage),
    Local { path: PathBuf, choice: Choice, name: String, stamp: Stamp },
}

/// Which image of an archive is meant; see [`Wanted`].
enum Choice {
    Only,
    Named(NamedReference),
    Called(String),
}

/// A layer to be brought in, independent of who asked for it.
#[derive(Clone)]
struct Layer {
    diff_id: Digest,
    /// Bytes of its blob.
    size: u64,
    source: LayerSource,
}

#[derive(Clone)]
enum LayerSource {
    Remote { asker: Arc<Asker>, blob: Descriptor },
    Local(LocalLayer),
}

pub(super) async fn pull(
    store: Arc<Inner>,
    reference: &Reference,
    options: PullOptions,
) -> Result<Arc<Image>, SharedError> {
    let credentials = options.credentials.unwrap_or_else(|| store.options.credentials.clone());
    let key = FlightKey { reference: reference.clone(), cached: options.cached, credentials };
    let seat =
        store.images.join(key.clone(), options.progress, |hub| pull_image(store.clone(), key.clone(), hub));
    seat.arrive().await
}

async fn pull_image(
    store: Arc<Inner>,
    key: FlightKey,
    hub: Arc<ProgressHub>,
) -> Result<Arc<Image>, SharedError> {
    let origin = Arc::new(locate(&store, &key.reference).await?);
    if key.cached
        && let Some(image) = remembered(&store, &origin).await?
    {
        return Ok(image);
    }
    tracing::info!(image = %origin.name(), "Pulling an image.");
    let _timed = store.pulls.begin();
    let (resolved, layers) = resolve(&store, &origin, &key.credentials).await?;
    for layer in &layers {
        hub.report(layer.progress(0, Phase::Waiting));
    }
    let image = loop {
        stream::iter(layers.clone().into_iter().map(|layer| ensure_layer(&store, layer, &hub)))
            .buffer_unordered(store.options.parallel_layers.max(1))
            .try_collect::<()>()
            .await?;
        // Somebody who prunes can have taken a layer away that no image had yet.
        if let Some(image) = remember(&store, &origin, resolved.clone()).await? {
            break image;
        }
    };
    // Not waited for, and nothing depends on it but how much is left after a power failure.
    let settling = store.clone();
    drop(spawn_blocking(move || {
        if let Err(error) = settling.layout.settle() {
            tracing::warn!(%error, "New layers could not be synced to disk; after a power failure they will be fetched again.");
        }
    }));
    tracing::info!(image = %origin.name(), id = %image.id, layers = image.layers.len(), "The image is in the store.");
    Ok(image)
}

// === where it is ===

async fn locate(store: &Arc<Inner>, reference: &Reference) -> Result<Origin, Error> {
    match (reference, &store.options.registry) {
        (Reference::Named(name), RegistryLocation::Remote(default)) => {
            Ok(Origin::Remote(name.resolve(default)))
        }
        (Reference::Named(name), RegistryLocation::Directory(directory)) => {
            let (name, directory) = (name.clone(), directory.clone());
            blocking(move || find_in_directory(&name, &directory)).await
        }
        (Reference::Local(path), _) => {
            let path = path.clone();
            blocking(move || find_path(&path)).await
        }
    }
}

/// Mesos' local puller takes `NAME:TAG.tar`, named as the task names the image; compressed archives and OCI layouts
/// in the same place are taken too. An image that names a registry and is not there comes from that registry.
fn find_in_directory(name: &NamedReference, directory: &Path) -> Result<Origin, Error> {
    let (written, untagged) = (
        name.to_string(),
        format!(
            "{}{}",
            name.registry().map(|registry| format!("{registry}/")).unwrap_or_default(),
            name.repository()
        ),
    );
    let mut stems = vec![written, format!("{untagged}:{}", name.tag())];
    if name.tag() == "latest" {
        stems.push(untagged.clone());
    }
    stems.dedup();
    let mut candidates: Vec<PathBuf> = stems
        .iter()
        .flat_map(|stem| {
            [".tar", ".tar.gz", ".tgz", ""].map(|suffix| directory.join(format!("{stem}{suffix}")))
        })
        .collect();
    // A layout can hold all of a repository's tags.
    candidates.push(directory.join(&untagged));
    candidates.dedup();
    let found = candidates.iter().find(|path| path.is_file() || path.join("index.json").is_file());
    match found {
        Some(path) => local(path, Choice::Named(name.clone()), path.display().to_string()),
        None if name.registry().is_some() => Ok(Origin::Remote(name.resolve(&RegistryUrl::docker_hub()))),
        None => Err(no_archive(&name.to_string(), &candidates)),
    }
}

/// The path as it is; or, when nothing is there, without what follows its last colon, which then chooses the image.
fn find_path(path: &Path) -> Result<Origin, Error> {
    let name = path.display().to_string();
    if path.exists() {
        return local(path, Choice::Only, name);
    }
    if let Some((archive, called)) = path.to_str().and_then(|text| text.rsplit_once(':'))
        && Path::new(archive).exists()
    {
        return local(Path::new(archive), Choice::Called(called.to_owned()), name);
    }
    Err(no_archive(&name, &[path.to_owned()]))
}

fn local(path: &Path, choice: Choice, mut name: String) -> Result<Origin, Error> {
    // A layout changes when its index does.
    let index = path.join("index.json");
    let telling = if index.is_file() { &index } else { path };
    let stamp = Stamp::of(telling).map_err(Error::io("look at", telling))?;
    if let Choice::Named(reference) = &choice {
        name = format!("{name} ({reference})");
    }
    Ok(Origin::Local { path: path.to_owned(), choice, name, stamp })
}

fn no_archive(name: &str, tried: &[PathBuf]) -> Error {
    let looked_for = tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Error::NoArchive { name: name.to_owned(), looked_for }
}

impl Origin {
    /// The name under which the store remembers the image.
    fn name(&self) -> String {
        match self {
            Self::Remote(image) => image.key(),
            Self::Local { name, .. } => name.clone(),
        }
    }

    fn stamp(&self) -> Option<&Stamp> {
        match self {
            Self::Remote(_) => None,
            Self::Local { stamp, .. } => Some(stamp),
        }
    }
}

// === what it is ===

/// The image's config, and its layers without repetitions.
async fn resolve(
    store: &Arc<Inner>,
    origin: &Arc<Origin>,
    credentials: &Arc<Credentials>,
) -> Result<(Resolved, Vec<Layer>), Error> {
    let (resolved, layers): (Resolved, Vec<(u64, LayerSource)>) = match &**origin {
        Origin::Remote(image) => {
            let (asker, resolved, blobs) = resolve_remote(store, image, credentials).await?;
            (
                resolved,
                blobs
                    .into_iter()
                    .map(|blob| (blob.size, LayerSource::Remote { asker: asker.clone(), blob }))
                    .collect(),
            )
        }
        Origin::Local { .. } => {
            let (store, origin) = (store.clone(), origin.clone());
            let local = blocking(move || open_archive(&store, &origin)).await?;
            (
                local.resolved,
                local.layers.into_iter().map(|layer| (layer.size(), LayerSource::Local(layer))).collect(),
            )
        }
    };
    let mut unique: Vec<Layer> = Vec::new();
    for (diff_id, (size, source)) in resolved.diff_ids.iter().zip(layers) {
        if !unique.iter().any(|known| known.diff_id == *diff_id) {
            unique.push(Layer { diff_id: diff_id.clone(), size, source });
        }
    }
    Ok((resolved, unique))
}

/// Asks for a remote image where it may be: mirrors of its registry, and the registry.
async fn resolve_remote(
    store: &Inner,
    image: &RemoteImage,
    credentials: &Credentials,
) -> Result<(Arc<Asker>, Resolved, Vec<Descriptor>), Error> {
    let options = &store.options.registry_options;
    let asker = |registry: &RegistryUrl| {
        let mut image = RemoteImage { registry: registry.clone(), ..image.clone() };
        if options.plain.contains(&image.registry.authority) {
            image.registry.scheme = Scheme::Http;
        }
        let login = credentials.of(&image.registry).cloned();
        Arc::new(Asker { image, login })
    };
    let mirrors = options.mirrors.iter().filter(|_| image.registry == RegistryUrl::docker_hub());
    for mirror in mirrors {
        let asker = asker(mirror);
        match store.client.resolve(&asker, &store.options.platform).await {
            Ok((resolved, blobs)) => return Ok((asker, resolved, blobs)),
            Err(error) => {
                tracing::info!(%mirror, %error, "A mirror does not give an image: the next one is asked.")
            }
        }
    }
    let asker = asker(&image.registry);
    let (resolved, blobs) = store.client.resolve(&asker, &store.options.platform).await?;
    Ok((asker, resolved, blobs))
}

fn open_archive(store: &Inner, origin: &Origin) -> Result<archive::LocalImage, Error> {
    let Origin::Local { path, choice, .. } = origin else {
        return Err(Error::Worker { reason: "a remote image was opened as an archive".to_owned() });
    };
    let wanted = match choice {
        Choice::Only => Wanted::Only,
        Choice::Named(reference) => Wanted::Named(reference),
        Choice::Called(name) => Wanted::Called(name),
    };
    archive::open(
        path,
        wanted,
        &store.options.platform,
        store.layout.staging(),
        store.options.limits.max_bytes,
    )
}

// === its layers ===

/// Brings a layer in, or waits for whoever is doing so.
async fn ensure_layer(store: &Arc<Inner>, layer: Layer, hub: &Arc<ProgressHub>) -> Result<(), SharedError> {
    loop {
        if store.layout.has_layer(&layer.diff_id) {
            hub.report(layer.progress(layer.size, Phase::Present));
            return Ok(());
        }
        let hub = hub.clone();
        let watcher: ProgressFn = Arc::new(move |progress| hub.report(progress));
        let seat = store.layers.join(layer.diff_id.clone(), Some(watcher), |layer_hub| {
            fetch_layer(store.clone(), layer.clone(), layer_hub)
        });
        let mine = seat.first;
        match seat.arrive().await {
            Ok(()) => return Ok(()),
            Err(error) if mine => return Err(error),
            // Another image's way to the layer failed; this image's may not.
            Err(_) => {}
        }
    }
}

async fn fetch_layer(store: Arc<Inner>, layer: Layer, hub: Arc<ProgressHub>) -> Result<(), SharedError> {
    let _turn = store.turns.acquire().await.map_err(|error| Error::Worker { reason: error.to_string() })?;
    if store.layout.has_layer(&layer.diff_id) {
        return Ok(());
    }
    hub.report(layer.progress(0, Phase::Fetching));
    let report = {
        let (layer, hub) = (layer.clone(), hub.clone());
        let mut reported = 0;
        move |done: u64| {
            // About a hundred reports a layer, and one for each 4 MiB of a large one.
            if done == layer.size || done - reported >= (layer.size / 100).min(4 << 20) {
                reported = done;
                hub.report(
                    layer.progress(done, if done == layer.size { Phase::Unpacking } else { Phase::Fetching }),
                );
            }
        }
    };
    match &layer.source {
        LayerSource::Remote { asker, blob } => fetch_remote(&store, &layer, asker, blob, report).await?,
        LayerSource::Local(local) => fetch_local(&store, &layer, local.clone(), report).await?,
    }
    hub.report(layer.progress(layer.size, Phase::Done));
    Ok(())
}

async fn fetch_remote(
    store: &Arc<Inner>,
    layer: &Layer,
    asker: &Asker,
    blob: &Descriptor,
    report: impl FnMut(u64) + Send,
) -> Result<(), Error> {
    let (pieces, reader) = pieces();
    let expected = Expected { diff_id: layer.diff_id.clone(), blob: Some((blob.digest.clone(), blob.size)) };
    let installing = store.clone();
    let install =
        blocking(move || installing.layout.install_layer(reader, &expected, &installing.options.limits));
    let (fetched, installed) = tokio::join!(store.client.fetch_blob(asker, blob, pieces, report), install);
    // When the network failed, the other side only knows that the stream ended.
    fetched.and(installed)
}

async fn fetch_local(
    store: &Arc<Inner>,
    layer: &Layer,
    local: LocalLayer,
    report: impl FnMut(u64) + Send + 'static,
) -> Result<(), Error> {
    let given_up = GivenUp::default();
    let flag = given_up.0.clone();
    let expected = Expected { diff_id: layer.diff_id.clone(), blob: local.blob.clone() };
    let store = store.clone();
    blocking(move || {
        let blob = local
            .open()
            .map_err(Error::io("open the archive of layer", Path::new(expected.diff_id.as_str())))?;
        store.layout.install_layer(
            Watched { inner: blob, given_up: flag, done: 0, report },
            &expected,
            &store.options.limits,
        )
    })
    .await
}

/// Set when the pull it belongs to is dropped.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reports what is read, and ends when the pull is given up.
struct Watched<R, F> {
    inner: R,
    given_up: Arc<AtomicBool>,
    done: u64,
    report: F,
}

impl<R: Read, F: FnMut(u64)> Read for Watched<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the pull was given up"));
        }
        let read = self.inner.read(buffer)?;
        if read > 0 {
            self.done += read as u64;
            (self.report)(self.done);
        }
        Ok(read)
    }
}

impl Layer {
    fn progress(&self, done: u64, phase: Phase) -> Progress {
        Progress { layer: self.diff_id.clone(), done, total: self.size, phase }
    }
}

// === what the store remembers ===

async fn remembered(store: &Arc<Inner>, origin: &Arc<Origin>) -> Result<Option<Arc<Image>>, Error> {
    let (store, origin) = (store.clone(), origin.clone());
    blocking(move || match store.layout.read_image(&origin.name(), origin.stamp()) {
        Some((reference, image)) => assemble(&store, image, reference.manifest).map(Some),
        None => Ok(None),
    })
    .await
}

async fn remember(
    store: &Arc<Inner>,
    origin: &Arc<Origin>,
    resolved: Resolved,
) -> Result<Option<Arc<Image>>, Error> {
    let (store, origin) = (store.clone(), origin.clone());
    blocking(move || {
        let image = ImageRecord { id: resolved.id, diff_ids: resolved.diff_ids, config: resolved.config };
        let reference = ReferenceRecord {
            name: origin.name(),
            image: image.id.clone(),
            manifest: resolved.manifest,
            stamp: origin.stamp().cloned(),
        };
        match store.layout.write_image(&image, &reference)? {
            true => assemble(&store, image, reference.manifest).map(Some),
            false => Ok(None),
        }
    })
    .await
}

fn assemble(store: &Inner, image: ImageRecord, manifest: Option<Digest>) -> Result<Arc<Image>, Error> {
    let layers =
        image.diff_ids.iter().map(|diff_id| store.layout.layer_path(diff_id)).collect::<Result<_, _>>()?;
    Ok(Arc::new(Image { id: image.id, manifest, layers, config: image.config }))
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::Worker { reason: error.to_string() }))
}
