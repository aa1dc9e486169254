//! What the tests share: images made by hand, tools from packages, a registry and a server with faults.

pub mod image;
pub mod registry;
pub mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tepui_images::{
    ImageStore, Phase, Progress, ProgressFn, PullOptions, Reference, RegistryLocation, RegistryOptions,
    StoreOptions,
};

/// A temporary directory that is removed even while a store in it still marks its layers as synced.
pub struct Temp {
    path: PathBuf,
}

impl Temp {
    pub fn new() -> Self {
        Self { path: tempfile::tempdir().unwrap().keep() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.path.exists() && Instant::now() < deadline {
            if std::fs::remove_dir_all(&self.path).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Runs a program from a package, which must succeed; gives its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} ({error}); install it: apt-get install docker-registry skopeo umoci busybox-static"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Options with short pauses, so that tests of failures are quick.
pub fn options(registry: &str) -> StoreOptions {
    let patience = RegistryOptions {
        first_backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(20),
        read_timeout: Duration::from_secs(20),
        ..RegistryOptions::default()
    };
    StoreOptions {
        registry: RegistryLocation::parse(registry).unwrap(),
        registry_options: patience,
        ..StoreOptions::default()
    }
}

pub fn open(root: &Path, registry: &str) -> ImageStore {
    ImageStore::open(root, options(registry)).unwrap()
}

pub fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A progress callback that keeps what it hears.
pub fn recorder() -> (ProgressFn, Arc<Mutex<Vec<Progress>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    (Arc::new(move |progress| sink.lock().unwrap().push(progress)), heard)
}

pub fn anew() -> PullOptions {
    PullOptions { cached: false, ..PullOptions::default() }
}

/// The store has nothing unfinished and nothing that is not whole.
pub fn assert_whole(root: &Path) {
    let count = |directory: &Path| std::fs::read_dir(directory).map(Iterator::count).unwrap_or(0);
    for session in std::fs::read_dir(root.join("staging")).unwrap() {
        let session = session.unwrap().path();
        assert_eq!(
            count(&session),
            1,
            "unfinished things in {}: {:?}",
            session.display(),
            std::fs::read_dir(&session).unwrap().collect::<Vec<_>>()
        );
    }
    for layer in std::fs::read_dir(root.join("layers")).unwrap() {
        let layer = layer.unwrap().path();
        assert!(
            layer.join("root").is_dir() && layer.join("layer.json").is_file(),
            "half a layer: {}",
            layer.display()
        );
    }
}

/// Waits until `condition` holds, for a minute at most.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The reports about each layer never go back.
pub fn assert_orderly(heard: &[Progress]) {
    for (index, later) in heard.iter().enumerate() {
        assert!(later.done <= later.total, "{later:?}");
        let earlier = heard[..index].iter().rev().find(|earlier| earlier.layer == later.layer);
        if let Some(earlier) = earlier {
            assert!(earlier.done <= later.done && earlier.phase <= later.phase, "{earlier:?} then {later:?}");
        }
    }
    assert!(heard.iter().any(|progress| matches!(progress.phase, Phase::Done | Phase::Present)));
}
