//! The fetcher: what `CommandInfo.uris` names goes into a sandbox before its container is prepared.
//!
//! ```text
//!   uris ──► [uri]       checked, all of them, before the first is fetched
//!    │ one after another
//!    ├─ cache? ──► [cache]   there, on its way, or brought now; what has no room goes past it
//!    ├─ http(s) ──► a client on the async side ── pieces ──┐
//!    ├─ a path ─────────────────────────────────────────────┤
//!    ▼                                                      ▼
//!   [identity]   a thread that touches files as the sandbox' user ──► [place] copies and unpacks
//! ```
//!
//! What went wrong is told the framework, with the URI, and the task beside its own output. A container that is destroyed meanwhile
//! stops its fetches ([`Stop`]); those that share one with others leave it to them.

mod cache;
mod error;
mod identity;
mod place;
mod stop;
#[cfg(test)]
mod tests;
mod uri;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tepui_api::v1::ContainerId;
use tepui_api::v1::command_info::Uri;
use tepui_images::{HttpClient, pieces};

use cache::{Brought, Cache, CachedFile, Key, Miss};
use error::Failure;
pub(crate) use error::FetchError;
use identity::Identity;
use place::{Placed, Sandbox, Source};
pub(crate) use stop::Stop;
use uri::{Location, Wanted};

/// What the fetcher is told of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Of the cache alone: what is in it is removed.
    pub(crate) cache_dir: PathBuf,
    /// `--fetcher_cache_size`, in bytes.
    pub(crate) cache_size: u64,
    /// `--fetcher_stall_timeout`.
    pub(crate) stall_timeout: Duration,
    /// `--frameworks_home`.
    pub(crate) home: Option<PathBuf>,
}

/// Fetches files into sandboxes. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    http: HttpClient,
    cache: Arc<Cache>,
    home: Option<PathBuf>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// What a container wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) container: &'a ContainerId,
    pub(crate) uris: &'a [Uri],
    pub(crate) sandbox: &'a Path,
    /// Whose sandbox it is; the agent's own user when absent.
    pub(crate) user: Option<&'a str>,
}

/// What was counted, for the metrics `containerizer/fetcher/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Containers that got all they wanted.
    pub(crate) succeeded: u64,
    /// Containers that did not.
    pub(crate) failed: u64,
    /// Bytes that the cache may hold.
    pub(crate) cache_size: u64,
    /// Bytes that it holds.
    pub(crate) cache_used: u64,
}

// === impl Fetcher ===

impl Fetcher {
    /// Sets the fetcher up, with an empty cache.
    ///
    /// # Errors
    /// When the cache's directory cannot be emptied or made.
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        let inner = Inner {
            http: HttpClient::new(settings.stall_timeout),
            cache: Cache::new(settings.cache_dir, settings.cache_size)?,
            home: settings.home,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What was counted since the agent began.
    pub(crate) fn counts(&self) -> Counts {
        let (cache_size, cache_used) = self.inner.cache.sizes();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            succeeded: read(&self.inner.succeeded),
            failed: read(&self.inner.failed),
            cache_size,
            cache_used,
        }
    }

    /// Fetches all that a container wants. When this returns, nothing writes into the sandbox any more.
    ///
    /// # Errors
    /// When one of them cannot be had, or `stop` is said.
    pub(crate) async fn fetch(&self, job: Job<'_>, stop: &Stop) -> Result<(), FetchError> {
        if job.uris.is_empty() {
            return Ok(());
        }
        let fetched = self.inner.fetch(job, stop).await;
        let fetched = if stop.is_said() { Err(FetchError::Stopped) } else { fetched };
        let count = if fetched.is_ok() { &self.inner.succeeded } else { &self.inner.failed };
        count.fetch_add(1, Ordering::Relaxed);
        match &fetched {
            Ok(()) => tracing::debug!(container = %job.container, uris = job.uris.len(), "fetched all URIs"),
            Err(FetchError::Stopped) => {}
            Err(error) => {
                tracing::warn!(container = %job.container, %error, "a container's URIs are not fetched")
            }
        }
        fetched
    }
}

// === impl Inner ===

impl Inner {
    async fn fetch(self: &Arc<Self>, job: Job<'_>, stop: &Stop) -> Result<(), FetchError> {
        let wanted = job.uris.iter().map(|uri| {
            Wanted::of(uri, self.home.as_deref())
                .map_err(|reason| FetchError::Invalid { uri: uri::shown(&uri.value), reason })
        });
        let wanted: Vec<Wanted> = wanted.collect::<Result<_, _>>()?;
        let user = job.user.map(str::to_owned);
        let identity = tokio::task::spawn_blocking(move || Identity::of(user.as_deref())).await;
        let identity = identity.map_err(|error| FetchError::User {
            user: job.user.unwrap_or_default().to_owned(),
            reason: error.to_string(),
        })??;
        let sandbox = Arc::new(Sandbox::open(job.sandbox).map_err(|source| FetchError::Sandbox {
            path: job.sandbox.to_owned(),
            reason: source.to_string(),
        })?);
        for wanted in wanted {
            let shown = wanted.shown.clone();
            let one = One { wanted: Arc::new(wanted), identity: &identity, sandbox: &sandbox, stop };
            let line = match self.fetch_one(&one, job.user).await {
                Ok(Placed::Copied { bytes }) => format!("Fetched '{shown}' ({bytes} bytes)"),
                Ok(Placed::Unpacked) => format!("Fetched and unpacked '{shown}'"),
                Err(failure) => {
                    let error = FetchError::Failed { uri: shown, reason: failure.to_string() };
                    one.note(error.to_string()).await;
                    return Err(error);
                }
            };
            one.note(line).await;
        }
        Ok(())
    }

    async fn fetch_one(self: &Arc<Self>, one: &One<'_>, user: Option<&str>) -> Result<Placed, Failure> {
        if one.wanted.cache
            && let Some(file) = self.cached(one, user).await?
        {
            let open = file.open().map_err(Failure::Read)?;
            return one.place(move || Ok(Source::Cached(file, open))).await;
        }
        match one.wanted.location.clone() {
            Location::File(path) => one.place(move || place::open_local(&path).map(Source::Local)).await,
            Location::Net(url) => {
                let download = one.unless_stopped(async { Ok(self.http.get(&url).await?) }).await?;
                let (sender, reader) = pieces();
                let send = one.unless_stopped(async { Ok(download.send(sender).await?) });
                let (sent, placed) = tokio::join!(send, one.place(move || Ok(Source::Net(reader))));
                // When the network failed, the other side only knows that the stream ended.
                sent.and(placed)
            }
        }
    }

    /// The file by way of the cache; none when it has to be had without.
    async fn cached(
        self: &Arc<Self>,
        one: &One<'_>,
        user: Option<&str>,
    ) -> Result<Option<Arc<CachedFile>>, Failure> {
        let key = Key { user: user.map(str::to_owned), uri: one.wanted.uri.clone() };
        let (this, wanted, identity) = (Arc::clone(self), Arc::clone(&one.wanted), one.identity.clone());
        let bring = move || async move { this.bring(&wanted, &identity).await };
        let get = async { Ok(self.cache.get(key, bring).await) };
        let (outcome, first) = one.unless_stopped(get).await?;
        let uri = &one.wanted.shown;
        match outcome {
            Ok(file) => Ok(Some(file)),
            Err(Miss::Bypass(reason)) => {
                tracing::info!(uri, reason, "a file is fetched without the cache");
                Ok(None)
            }
            // Who waited for another's attempt makes one itself.
            Err(Miss::Failed(failure)) if !first => {
                tracing::info!(uri, %failure, "a file is fetched without the cache");
                Ok(None)
            }
            Err(Miss::Failed(failure)) => Err(Failure::Shared(failure)),
        }
    }

    /// Brings a file into the cache.
    async fn bring(&self, wanted: &Wanted, identity: &Identity) -> Result<Brought, Miss> {
        let failed = |failure: Failure| Miss::Failed(Arc::new(failure));
        match wanted.location.clone() {
            Location::File(path) => {
                let file = identity.run(move || place::open_local(&path)).await.map_err(failed)?;
                let length = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
                let mode = place::copied_mode(&file);
                let cached = self.room_for(wanted, length, mode)?;
                store(cached, file).await.map_err(failed)
            }
            Location::Net(url) => {
                let download = self.http.get(&url).await.map_err(|error| failed(error.into()))?;
                let Some(length) = download.length().filter(|length| *length > 0) else {
                    return Err(Miss::Bypass("the server does not say how large it is".to_owned()));
                };
                let cached = self.room_for(wanted, length, 0o644)?;
                let (sender, reader) = pieces();
                let send = async { download.send(sender).await.map_err(|error| failed(error.into())) };
                let (sent, stored) = tokio::join!(send, store(cached, reader));
                sent.and(stored.map_err(failed))
            }
        }
    }

    fn room_for(&self, wanted: &Wanted, bytes: u64, mode: u32) -> Result<CachedFile, Miss> {
        let room = self.cache.reserve(bytes)?;
        Ok(CachedFile::new(self.cache.next_path(&wanted.output), mode, room))
    }
}

/// Writes a file of the cache. Ends soon when it is dropped.
async fn store(mut cached: CachedFile, mut from: impl io::Read + Send + 'static) -> Result<Brought, Failure> {
    let given_up = GivenUp::default();
    let flag = Arc::clone(&given_up.0);
    let stored = tokio::task::spawn_blocking(move || {
        let path = cached.path().to_owned();
        let made = std::fs::File::options().write(true).create_new(true).open(&path);
        let mut file = made.map_err(Failure::open(&path))?;
        let stop = || flag.load(Ordering::Relaxed);
        let bytes = place::pour(&mut from, &mut file, u64::MAX, &stop, Failure::write(&path))?;
        let keep = cached.settle_for(bytes);
        Ok(Brought { file: cached, keep })
    });
    stored.await.unwrap_or_else(|error| Err(Failure::Worker(error.to_string())))
}

/// Says that it was dropped.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One file on its way into a sandbox.
struct One<'a> {
    wanted: Arc<Wanted>,
    identity: &'a Identity,
    sandbox: &'a Arc<Sandbox>,
    stop: &'a Stop,
}

impl One<'_> {
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.stop.said() => Err(Failure::Stopped),
            done = work => done,
        }
    }

    /// Puts it into the sandbox, as the sandbox' user.
    async fn place(
        &self,
        source: impl FnOnce() -> Result<Source, Failure> + Send + 'static,
    ) -> Result<Placed, Failure> {
        let (wanted, sandbox) = (Arc::clone(&self.wanted), Arc::clone(self.sandbox));
        let stop = self.stop.clone();
        self.identity.run(move || place::place(&sandbox, &wanted, source()?, &|| stop.is_said())).await
    }

    /// Writes a line for the task to read.
    async fn note(&self, line: String) {
        let sandbox = Arc::clone(self.sandbox);
        let noted = self.identity.run(move || {
            place::note(&sandbox, &line);
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::debug!(%error, "a line of the fetcher is lost");
        }
    }
}
