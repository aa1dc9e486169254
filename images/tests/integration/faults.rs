//! Against a server that counts, breaks off and lies; and under sudden death.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tepui_images::{Digest, Error, ImageStore, Phase, PullOptions, SharedError, UnpackError};

use crate::support::image::{Built, Compression, Layer, build, noise, sample};
use crate::support::server::{Answer, Server};
use crate::support::{Temp, assert_orderly, assert_whole, open, recorder, reference, wait_until};

struct Case {
    temp: Temp,
    server: Server,
    store: ImageStore,
}

impl Case {
    fn new(image: &Built) -> Self {
        let temp = Temp::new();
        let server = Server::start();
        server.add("app", "1", image);
        let store = open(temp.path(), &server.url());
        Self { temp, server, store }
    }

    async fn pull(&self) -> Result<Arc<tepui_images::Image>, SharedError> {
        self.store.pull(&reference("app:1"), PullOptions::default()).await
    }

    /// The pull fails with the right words, nothing is left of it, and when the server behaves the next one works.
    async fn fails_then_works(&self, is_right: impl Fn(&Error) -> bool) {
        let error = self.pull().await.unwrap_err();
        assert!(is_right(&error), "{error:?}");
        wait_until("the end of unpacking", || staged(self.temp.path()) == 0);
        assert_whole(self.temp.path());
        assert!(self.store.list().unwrap().is_empty());
        self.server.behave(|_| Answer::Properly);
        self.pull().await.unwrap();
        assert_whole(self.temp.path());
    }
}

/// Things in the staging directories beside the sessions' locks.
fn staged(root: &Path) -> usize {
    std::fs::read_dir(root.join("staging"))
        .unwrap()
        .map(|session| std::fs::read_dir(session.unwrap().path()).unwrap().count() - 1)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pulls_of_an_absent_image_are_one_download() {
    let image = sample(1);
    let case = Case::new(&image);
    let pulls = (0..100).map(|_| {
        let store = case.store.clone();
        tokio::spawn(async move { store.pull(&reference("app:1"), PullOptions::default()).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        assert_eq!(pull.await.unwrap().unwrap().id, image.config);
    }
    assert_eq!(case.server.count("/manifests/"), 1);
    assert_eq!(case.server.count("/blobs/"), 4, "a config and three layers: {:?}", case.server.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_share_the_layers_they_have_in_common_even_while_these_arrive() {
    let common = (Layer::default().file("common", &noise(1, 400_000)), Compression::Gzip);
    let own = |name: &str| (Layer::default().file(name, name.as_bytes()), Compression::Gzip);
    let (one, two) =
        (build(&[common.clone(), own("one")], json!({})), build(&[common, own("two")], json!({})));
    let case = Case::new(&one);
    case.server.add("other", "1", &two);
    let other = reference("other:1");
    let (first, second) = tokio::join!(case.pull(), case.store.pull(&other, PullOptions::default()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.layers[0], second.layers[0]);
    assert_ne!(first.layers[1], second.layers[1]);
    assert_eq!(case.server.count(one.layers[0].as_str()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_blob_goes_on_where_it_broke_off() {
    let image = sample(2);
    let case = Case::new(&image);
    let layer = image.layers[0].to_string();
    let broken = layer.clone();
    case.server.behave(move |request| {
        if request.path.contains(&broken) && request.repetition < 3 {
            Answer::BreakOff(50_000)
        } else {
            Answer::Properly
        }
    });
    let (progress, heard) = recorder();
    case.store
        .pull(&reference("app:1"), PullOptions { progress: Some(progress), ..PullOptions::default() })
        .await
        .unwrap();
    assert_orderly(&heard.lock().unwrap());
    let asked: Vec<_> = case
        .server
        .requests()
        .into_iter()
        .filter(|request| request.path.contains(&layer))
        .map(|request| request.from)
        .collect();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[0], None);
    assert!(asked[1..].windows(2).all(|pair| pair[0] < pair[1]), "each goes on from later: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_costs_only_time() {
    let image = sample(3);
    let case = Case::new(&image);
    let layer = image.layers[1].to_string();
    case.server.behave(move |request| {
        if request.path.contains(&layer) && request.repetition < 2 {
            Answer::WithoutRange(100_000)
        } else {
            Answer::WithoutRange(usize::MAX)
        }
    });
    let pulled = case.pull().await.unwrap();
    assert_eq!(std::fs::read(pulled.layers[1].path.join("file1")).unwrap(), noise(31, 300_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_always_breaks_is_given_up() {
    let image = sample(4);
    let case = Case::new(&image);
    let layer = image.layers[0].to_string();
    case.server.behave(
        move |request| if request.path.contains(&layer) { Answer::BreakOff(1000) } else { Answer::Properly },
    );
    case.fails_then_works(|error| matches!(error, Error::GaveUp { attempts: 6, .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_busy_is_asked_again() {
    let case = Case::new(&sample(5));
    case.server.behave(|request| {
        if request.repetition < 2 {
            Answer::Send { status: 503, headers: vec!["Retry-After: 0".into()], body: b"busy".to_vec() }
        } else {
            Answer::Properly
        }
    });
    case.pull().await.unwrap();
    assert_eq!(case.server.count("/manifests/"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_damaged_content_is_refused() {
    let image = sample(6);
    let forge = |document: Digest, content: Vec<u8>| {
        let case = Case::new(&image);
        case.server.behave(move |request| {
            if request.path.contains(document.as_str()) {
                Answer::Send { status: 200, headers: vec![], body: content.clone() }
            } else {
                Answer::Properly
            }
        });
        case
    };
    // The same length, another byte: found out by the digest of the blob or, for a compressed one, by its own checks.
    let mut other = image.blobs[&image.layers[2]].clone();
    other[1000] ^= 1;
    forge(image.layers[2].clone(), other)
        .fails_then_works(|error| matches!(error, Error::Layer { source: UnpackError::Digest { .. }, .. }))
        .await;
    let longer = [image.blobs[&image.layers[2]].clone(), vec![0]].concat();
    forge(image.layers[2].clone(), longer)
        .fails_then_works(|error| matches!(error, Error::WrongSize { .. }))
        .await;
    let shorter = image.blobs[&image.layers[0]][..1000].to_vec();
    forge(image.layers[0].clone(), shorter)
        .fails_then_works(|error| matches!(error, Error::WrongSize { .. }))
        .await;
    let mut config = image.blobs[&image.config].clone();
    let last = config.len() - 1;
    config[last] = b' ';
    forge(image.config.clone(), config)
        .fails_then_works(|error| matches!(error, Error::WrongDigest { .. }))
        .await;
    let huge = vec![b' '; 5 << 20];
    forge(image.config.clone(), huge)
        .fails_then_works(|error| matches!(error, Error::Malformed { .. }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_other_than_the_config_says_is_refused() {
    let image = sample(7);
    let case = Case::new(&image);
    // A manifest that is right in itself, but puts another blob in the layer's place.
    let replacement = sample(8).blobs[&sample(8).layers[0]].clone();
    let manifest = String::from_utf8(image.blobs[&image.manifest].clone()).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["layers"][0] =
        json!({"mediaType": "", "digest": Digest::of(&replacement), "size": replacement.len()});
    let manifest = manifest.to_string().into_bytes();
    case.server.put(&format!("/v2/app/blobs/{}", Digest::of(&replacement)), &replacement);
    case.server.behave(move |request| {
        if request.path.ends_with("manifests/1") {
            Answer::Send { status: 200, headers: vec![], body: manifest.clone() }
        } else {
            Answer::Properly
        }
    });
    case.fails_then_works(|error| {
        matches!(error, Error::Layer { source: UnpackError::Digest { kind: "diff id", .. }, .. })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_endless_manifests_are_refused() {
    let case = Case::new(&sample(9));
    case.server.behave(|_| Answer::Send {
        status: 200,
        headers: vec![],
        body: br#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.to_vec(),
    });
    case.fails_then_works(|error| matches!(error, Error::SchemaOne { .. })).await;

    // Indexes that lead to one another for ever: each is named by its digest, so they are made from the last to the first.
    let case = Case::new(&sample(9));
    let mut next = Digest::of(b"the last");
    let mut documents = Vec::new();
    for _ in 0..10 {
        let index =
            json!({"schemaVersion": 2, "manifests": [{"digest": next, "size": 1}]}).to_string().into_bytes();
        next = Digest::of(&index);
        documents.push((next.clone(), index));
    }
    for (digest, index) in &documents {
        case.server.put(&format!("/v2/app/manifests/{digest}"), index);
    }
    let (_, first) = documents.pop().unwrap();
    case.server.behave(move |request| {
        if request.path.ends_with("manifests/1") {
            Answer::Send { status: 200, headers: vec![], body: first.clone() }
        } else {
            Answer::Properly
        }
    });
    case.fails_then_works(|error| error.to_string().contains("indexes lead to one another")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_once_and_renewed_when_refused() {
    let image = sample(10);
    let case = Case::new(&image);
    let valid = Arc::new(AtomicUsize::new(1));
    let (current, address) = (valid.clone(), case.server.address.clone());
    case.server.behave(move |request| {
        let token = current.load(Ordering::SeqCst);
        if request.path.starts_with("/token") {
            return Answer::Send { status: 200, headers: vec![], body: json!({"token": format!("t{token}")}).to_string().into_bytes() };
        }
        if request.authorization.as_deref() == Some(&format!("Bearer t{token}")) {
            return Answer::Properly;
        }
        let challenge = format!(r#"WWW-Authenticate: Bearer realm="http://{address}/token",service="here",scope="repository:app:pull""#);
        Answer::Send { status: 401, headers: vec![challenge], body: vec![] }
    });
    case.pull().await.unwrap();
    assert_eq!(case.server.count("/token?scope=repository%3Aapp%3Apull&service=here"), 1);
    // The token has expired by the next time.
    valid.store(2, Ordering::SeqCst);
    case.store.pull(&reference("app:1"), crate::support::anew()).await.unwrap();
    assert_eq!(case.server.count("/token"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_credentials_is_an_error_that_says_so() {
    let case = Case::new(&sample(11));
    case.server.behave(|_| Answer::Send {
        status: 401,
        headers: vec![r#"WWW-Authenticate: Basic realm="x""#.into()],
        body: vec![],
    });
    case.fails_then_works(|error| {
        matches!(error, Error::Unauthorized { .. }) && error.to_string().contains("credentials")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_stops_and_leaves_nothing() {
    let image = sample(12);
    let case = Case::new(&image);
    case.server.behave(|request| {
        if request.path.contains("/blobs/") && request.repetition == 0 {
            Answer::Stall(120_000)
        } else {
            Answer::Properly
        }
    });
    let started = Arc::new(Mutex::new(false));
    let seen = started.clone();
    let progress = Arc::new(move |progress: tepui_images::Progress| {
        if progress.phase == Phase::Fetching && progress.done > 50_000 {
            *seen.lock().unwrap() = true;
        }
    });
    let store = case.store.clone();
    let pull = tokio::spawn(async move {
        store
            .pull(&reference("app:1"), PullOptions { progress: Some(progress), ..PullOptions::default() })
            .await
    });
    tokio::task::block_in_place(|| wait_until("part of a layer", || *started.lock().unwrap()));
    assert!(staged(case.temp.path()) > 0);
    pull.abort();
    let _ = pull.await;
    tokio::task::block_in_place(|| {
        wait_until("the removal of what was begun", || staged(case.temp.path()) == 0)
    });
    assert_whole(case.temp.path());
    assert_eq!(case.pull().await.unwrap().id, image.config);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_stay_get_their_image_when_the_first_leaves() {
    let image = sample(13);
    let case = Case::new(&image);
    let released = Arc::new(AtomicUsize::new(0));
    let gate = released.clone();
    case.server.behave(move |request| {
        while request.path.contains("/blobs/") && gate.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Answer::Properly
    });
    let pull = || {
        let store = case.store.clone();
        tokio::spawn(async move { store.pull(&reference("app:1"), PullOptions::default()).await })
    };
    let first = pull();
    tokio::task::block_in_place(|| wait_until("the first request", || case.server.count("/blobs/") > 0));
    let second = pull();
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.abort();
    let _ = first.await;
    released.store(1, Ordering::SeqCst);
    assert_eq!(second.await.unwrap().unwrap().id, image.config);
    assert_eq!(case.server.count("/manifests/"), 1);
}

/// What the next test starts in a process of its own, to be killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of kill_nine_at_any_instant_leaves_the_store_whole"]
async fn pull_in_a_process_to_be_killed() {
    let (root, registry) = (std::env::var("TEST_STORE").unwrap(), std::env::var("TEST_REGISTRY").unwrap());
    let store = open(Path::new(&root), &registry);
    store.pull(&reference("app:1"), PullOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_at_any_instant_leaves_the_store_whole() {
    let files = |seed: u64| {
        (0..200).fold(Layer::default(), |layer, index| {
            layer.file(&format!("d{seed}/f{index}"), &noise(seed * 1000 + index, 3000))
        })
    };
    let image = build(
        &[(files(1), Compression::Gzip), (files(2), Compression::Zstd), (files(3), Compression::None)],
        json!({}),
    );
    let case = Case::new(&image);
    // Slow enough for some of the instants to fall into the transfer.
    case.server.behave(|request| {
        if request.path.contains("/blobs/") {
            std::thread::sleep(Duration::from_millis(20));
        }
        Answer::Properly
    });
    let mut interrupted = 0;
    for delay in 0..12 {
        let temp = Temp::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::pull_in_a_process_to_be_killed", "--ignored", "--nocapture"])
            .env("TEST_STORE", temp.path())
            .env("TEST_REGISTRY", case.server.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // From before its first request until after its last.
        tokio::time::sleep(Duration::from_millis(10 + 15 * delay)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let sessions = std::fs::read_dir(temp.path().join("staging")).map(Iterator::count).unwrap_or(0);
        let finished = std::fs::read_dir(temp.path().join("references")).map(Iterator::count).unwrap_or(0);
        interrupted += usize::from(sessions > 0 && finished == 0);
        let store = open(temp.path(), &case.server.url());
        assert_whole(temp.path());
        assert_eq!(
            std::fs::read_dir(temp.path().join("staging")).unwrap().count(),
            1,
            "only this process' session is left"
        );
        let pulled = store.pull(&reference("app:1"), PullOptions::default()).await.unwrap();
        for (index, layer) in pulled.layers.iter().enumerate() {
            assert_eq!(std::fs::read_dir(layer.path.join(format!("d{}", index + 1))).unwrap().count(), 200);
        }
    }
    assert!(interrupted > 0, "no kill hit a pull under way");
}
