//! Files that were fetched with `cache`, for whoever fetches them next.
//!
//! A file is kept by its URI and the user it was fetched for. Those who ask for one that is on its way wait for it; the one who began
//! may leave, and when the last has left, it is given up. Space is reserved before a byte is written (`--fetcher_cache_size`), for which those files
//! go that were not asked for the longest. A file that somebody uses never goes: it is there for as long as somebody holds it
//! ([`CachedFile`]). Nothing survives the agent: it empties the directory when it starts, as Mesos does.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use super::error::Failure;

/// A file is kept by who may see it, and its URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) user: Option<String>,
    pub(super) uri: String,
}

/// The files that are there, and the space for them.
pub(super) struct Cache {
    directory: PathBuf,
    /// In bytes.
    size: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that are there, or will be.
    used: u64,
    /// Of the last file's name.
    serial: u64,
    /// How often a file was asked for.
    asked: u64,
    slots: HashMap<Key, Slot>,
}

enum Slot {
    Coming(WeakShared<BoxFuture<'static, Outcome>>),
    Here {
        file: Arc<CachedFile>,
        /// When somebody asked for it last, counted in [`State::asked`].
        last: u64,
    },
}

/// A file of the cache. It is removed when the cache has let it go and nobody uses it.
pub(super) struct CachedFile {
    path: PathBuf,
    mode: u32,
    room: Room,
}

/// Space that is taken from a cache for as long as this lives.
pub(super) struct Room {
    cache: Arc<Cache>,
    bytes: u64,
}

/// Why the cache does not have a file.
#[derive(Debug, Clone)]
pub(super) enum Miss {
    /// It can be had, but not by way of the cache.
    Bypass(String),
    /// It cannot be had.
    Failed(Arc<Failure>),
}

type Outcome = Result<Arc<CachedFile>, Miss>;

/// A file that was brought, and whether it is to stay.
pub(super) struct Brought {
    pub(super) file: CachedFile,
    pub(super) keep: bool,
}

// === impl Cache ===

impl Cache {
    /// An empty cache. What is in the directory is removed.
    pub(super) fn new(directory: PathBuf, size: u64) -> io::Result<Arc<Self>> {
        if directory.symlink_metadata().is_ok() {
            tepui_shim::remove_tree(&directory).map_err(io::Error::other)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Arc::new(Self { directory, size, state: Mutex::default() }))
    }

    /// How many bytes it may hold, and how many it does.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.size, self.lock().used)
    }

    /// A file; brought by `bring` if it is not there, nor on its way. Tells also whether it was brought for this caller first of all.
    pub(super) async fn get<F>(self: &Arc<Self>, key: Key, bring: impl FnOnce() -> F) -> (Outcome, bool)
    where
        F: Future<Output = Result<Brought, Miss>> + Send + 'static,
    {
        let (work, first) = match self.look(&key) {
            Look::Here(file) => return (Ok(file), false),
            Look::Coming(work) => (work, false),
            Look::Nowhere => self.begin(key, bring()),
        };
        (work.await, first)
    }

    fn look(&self, key: &Key) -> Look {
        // Dropped when the state is not locked any more, as it gives room back.
        let _stale;
        let mut state = self.lock();
        state.asked += 1;
        let now = state.asked;
        match state.slots.get_mut(key) {
            Some(Slot::Here { file, last }) if file.path.exists() => {
                *last = now;
                Look::Here(Arc::clone(file))
            }
            Some(Slot::Coming(work)) => match work.upgrade().filter(|work| work.peek().is_none()) {
                Some(work) => Look::Coming(work),
                None => Look::Nowhere,
            },
            Some(Slot::Here { .. }) => {
                // Somebody has removed it.
                _stale = state.slots.remove(key);
                drop(state);
                Look::Nowhere
            }
            None => Look::Nowhere,
        }
    }

    fn begin(
        self: &Arc<Self>,
        key: Key,
        bringing: impl Future<Output = Result<Brought, Miss>> + Send + 'static,
    ) -> (Shared<BoxFuture<'static, Outcome>>, bool) {
        let (this, settled) = (Arc::clone(self), key.clone());
        let work = async move { this.settle(settled, bringing.await) }.boxed().shared();
        // A file that another brought meanwhile and that is let go gives its room back, which needs the lock: dropped after that.
        let _replaced;
        let mut state = self.lock();
        // Somebody else may have begun since it was looked for.
        if let Some(Slot::Coming(other)) = state.slots.get(&key)
            && let Some(other) = other.upgrade().filter(|other| other.peek().is_none())
        {
            return (other, false);
        }
        state.slots.retain(|_, slot| match slot {
            Slot::Coming(work) => work.upgrade().is_some_and(|work| work.peek().is_none()),
            Slot::Here { .. } => true,
        });
        _replaced = work.downgrade().and_then(|weak| state.slots.insert(key, Slot::Coming(weak)));
        (work, true)
    }

    fn settle(&self, key: Key, brought: Result<Brought, Miss>) -> Outcome {
        let mut state = self.lock();
        match brought {
            Ok(Brought { file, keep }) => {
                let file = Arc::new(file);
                let last = state.asked;
                if keep {
                    state.slots.insert(key, Slot::Here { file: Arc::clone(&file), last });
                } else {
                    state.slots.remove(&key);
                }
                Ok(file)
            }
            Err(miss) => {
                state.slots.remove(&key);
                Err(miss)
            }
        }
    }

    /// Takes room, for which others make way if need be.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Room, Miss> {
        loop {
            let victim = {
                let mut state = self.lock();
                if state.used.saturating_add(bytes) <= self.size {
                    state.used += bytes;
                    return Ok(Room { cache: Arc::clone(self), bytes });
                }
                let unused: u64 = state.slots.values().filter_map(Slot::unused).map(|(_, bytes)| bytes).sum();
                if (state.used - unused).saturating_add(bytes) > self.size {
                    let words = format!("{bytes} bytes have no room in the cache of {} bytes", self.size);
                    return Err(Miss::Bypass(words));
                }
                let last = |(_, slot): &(&Key, &Slot)| slot.unused().map(|(last, _)| last);
                let unused = state.slots.iter().filter(|(_, slot)| slot.unused().is_some());
                let oldest = unused.min_by_key(last).map(|(key, _)| key.clone());
                oldest.and_then(|key| state.slots.remove(&key))
            };
            // Its room comes back when it is dropped, now that the state is not locked.
            drop(victim);
        }
    }

    /// A name for a file that is none yet. `name`: of the file fetched, for people who look into the directory.
    pub(super) fn next_path(&self, name: &Path) -> PathBuf {
        let mut state = self.lock();
        state.serial += 1;
        let text = name.file_name().unwrap_or_default().to_string_lossy();
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
        let mut end: Vec<char> = text.chars().rev().take(20).map(safe).collect();
        end.reverse();
        self.directory.join(format!("c{}-{}", state.serial, end.iter().collect::<String>()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Look {
    Here(Arc<CachedFile>),
    Coming(Shared<BoxFuture<'static, Outcome>>),
    Nowhere,
}

impl Slot {
    /// When it was asked for last, and its bytes, if it is a file that nobody uses.
    fn unused(&self) -> Option<(u64, u64)> {
        match self {
            Self::Here { file, last } if Arc::strong_count(file) == 1 => Some((*last, file.room.bytes)),
            Self::Here { .. } | Self::Coming(_) => None,
        }
    }
}

// === impl CachedFile ===

impl CachedFile {
    /// A file that is being written at this path.
    pub(super) fn new(path: PathBuf, mode: u32, room: Room) -> Self {
        Self { path, mode, room }
    }

    /// Its permissions, as it was found.
    pub(super) fn mode(&self) -> u32 {
        self.mode
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it from its beginning.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// It has turned out to be of this size; whether its room holds it.
    pub(super) fn settle_for(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.room.bytes;
        if fits {
            self.room.shrink(bytes);
        }
        fits
    }
}

impl Drop for CachedFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

// === impl Room ===

impl Room {
    fn shrink(&mut self, bytes: u64) {
        self.cache.lock().used -= self.bytes - bytes;
        self.bytes = bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cache.lock().used -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    fn key(uri: &str) -> Key {
        Key { user: None, uri: uri.into() }
    }

    /// Brings a file of so many bytes.
    fn bring(cache: &Arc<Cache>, bytes: u64) -> Result<Brought, Miss> {
        let room = cache.reserve(bytes)?;
        let path = cache.next_path(Path::new("name"));
        std::fs::write(&path, vec![b'x'; usize::try_from(bytes).unwrap()]).unwrap();
        Ok(Brought { file: CachedFile::new(path, 0o644, room), keep: true })
    }

    async fn get(cache: &Arc<Cache>, uri: &str, bytes: u64) -> Outcome {
        let this = Arc::clone(cache);
        cache.get(key(uri), || async move { bring(&this, bytes) }).await.0
    }

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[tokio::test]
    async fn the_oldest_make_way_but_none_in_use() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("left over"), "x").unwrap();
        let cache = Cache::new(dir.path().to_owned(), 100).unwrap();
        assert_eq!(files(dir.path()), 0, "what an earlier agent left is gone");
        let a = get(&cache, "a", 40).await.unwrap();
        drop(get(&cache, "b", 40).await.unwrap());
        drop(get(&cache, "c", 20).await.unwrap());
        drop(get(&cache, "b", 40).await.unwrap());
        assert_eq!(cache.sizes(), (100, 100));
        // c is older than b, and a is in use.
        drop(get(&cache, "d", 10).await.unwrap());
        assert_eq!((cache.sizes().1, files(dir.path())), (90, 3));
        assert!(matches!(get(&cache, "e", 70).await, Err(Miss::Bypass(_))), "a is in use");
        assert_eq!(files(dir.path()), 3, "and nothing was removed in vain");
        let path = a.path.clone();
        drop(a);
        assert!(path.exists(), "it stays for the next one");
        drop(get(&cache, "e", 100).await.unwrap());
        assert_eq!((cache.sizes().1, files(dir.path())), (100, 1));
        assert!(matches!(get(&cache, "f", 101).await, Err(Miss::Bypass(_))));
    }

    #[tokio::test]
    async fn many_askers_are_brought_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 100).unwrap();
        let brought = Arc::new(AtomicUsize::new(0));
        let (release, released) = oneshot::channel::<()>();
        let released = released.map(drop).shared();
        let ask = |cache: Arc<Cache>| {
            let (brought, released, this) = (Arc::clone(&brought), released.clone(), Arc::clone(&cache));
            async move {
                let bringing = async move {
                    brought.fetch_add(1, Ordering::SeqCst);
                    released.await;
                    bring(&this, 10)
                };
                cache.get(key("a"), || bringing).await
            }
        };
        let mut askers: Vec<_> = (0..5).map(|_| tokio::spawn(ask(Arc::clone(&cache)))).collect();
        tokio::task::yield_now().await;
        // The first, whose work it is, leaves.
        let first = askers.remove(0);
        first.abort();
        assert!(first.await.is_err());
        release.send(()).unwrap();
        let mut firsts = 0;
        for asker in askers {
            let (outcome, first) = asker.await.unwrap();
            assert!(outcome.is_ok());
            firsts += usize::from(first);
        }
        assert_eq!((brought.load(Ordering::SeqCst), firsts), (1, 0));
        assert_eq!(cache.sizes().1, 10);
    }

    #[tokio::test]
    async fn what_fails_is_not_kept_nor_is_what_grew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 100).unwrap();
        let (outcome, first) =
            cache.get(key("a"), || async { Err(Miss::Failed(Arc::new(Failure::Stopped))) }).await;
        assert!(outcome.is_err() && first);
        let this = Arc::clone(&cache);
        let grown = async move {
            let mut brought = bring(&this, 10)?;
            brought.keep = brought.file.settle_for(11);
            Ok(brought)
        };
        let file = cache.get(key("a"), || grown).await.0.unwrap();
        assert_eq!((file.open().unwrap().metadata().unwrap().len(), cache.sizes().1), (10, 10));
        drop(file);
        assert_eq!((cache.sizes().1, files(dir.path())), (0, 0));
        // One that is smaller than it was said to be gives room back; one that somebody has removed is brought again.
        let this = Arc::clone(&cache);
        let small = async move {
            let mut brought = bring(&this, 10)?;
            brought.keep = brought.file.settle_for(4);
            Ok(brought)
        };
        let file = cache.get(key("a"), || small).await.0.unwrap();
        assert_eq!(cache.sizes().1, 4);
        std::fs::remove_file(&file.path).unwrap();
        drop(file);
        assert!(get(&cache, "a", 7).await.is_ok());
        assert_eq!((cache.sizes().1, files(dir.path())), (7, 1));
    }
}
