//! Ten images that mean harm, each from a real HTTP server or an archive on disk: refused with words, nothing written outside the store, and the
//! store as good as before.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tar::{EntryType, Header};
use tepui_images::{Digest, ImageStore, PullOptions, UnpackLimits};

use crate::support::image::{Built, Compression, Layer, PLAIN, build, sample};
use crate::support::server::{Answer, Server};
use crate::support::{Temp, assert_whole, options, reference};

/// The store of an agent, beside what it must not touch.
struct Victim {
    temp: Temp,
    server: Server,
    store: ImageStore,
    before: BTreeMap<PathBuf, (u64, i64, u32)>,
}

impl Victim {
    fn new() -> Self {
        let temp = Temp::new();
        for folder in ["outside", "outside/sub"] {
            std::fs::create_dir(temp.path().join(folder)).unwrap();
        }
        for file in ["outside/passwd", "outside/sub/f", "f"] {
            std::fs::write(temp.path().join(file), "untouched").unwrap();
        }
        let server = Server::start();
        server.add("good", "1", &sample(3));
        let mut options = options(&server.url());
        options.limits = UnpackLimits { max_bytes: 64 << 20, ..UnpackLimits::default() };
        let store = ImageStore::open(&temp.path().join("store"), options).unwrap();
        let before = seen(temp.path());
        Self { temp, server, store, before }
    }

    /// The image is refused with these words; nothing of it is left anywhere, and a good one can be had.
    async fn refuses(&self, name: &str, words: &str) {
        let refused =
            self.store.pull(&reference(name), PullOptions::default()).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{name}: {refused}");
        assert_eq!(seen(self.temp.path()), self.before, "{name}: something outside the store was touched");
        self.server.behave(|_| Answer::Properly);
        self.store.pull(&reference("good:1"), PullOptions::default()).await.unwrap();
        assert_whole(&self.temp.path().join("store"));
        let names: Vec<_> = self.store.list().unwrap().into_iter().map(|image| image.name).collect();
        assert!(names.len() == 1 && names[0].contains("good"), "{name}: {names:?}");
        println!("{name}: {refused}");
    }

    async fn refuses_layer(&self, layer: Layer, words: &str) {
        self.server.add("bad", "1", &build(&[(layer, Compression::Gzip)], json!({})));
        self.refuses("bad:1", words).await;
    }

    /// The good image with another answer for what has `part` in its path.
    async fn refuses_answer(&self, image: &Built, part: &str, body: Option<Vec<u8>>, words: &str) {
        self.server.add("bad", "1", image);
        let part = part.to_owned();
        self.server.behave(move |request| match &body {
            Some(body) if request.path.contains("/bad/") && request.path.contains(&part) => {
                Answer::Send { status: 200, headers: vec![], body: body.clone() }
            }
            None if request.path.contains("/bad/") && request.path.contains(&part) => {
                Answer::Send { status: 404, headers: vec![], body: vec![] }
            }
            _ => Answer::Properly,
        });
        self.refuses("bad:1", words).await;
    }
}

/// All that is outside the store, with its size, time and mode.
fn seen(base: &Path) -> BTreeMap<PathBuf, (u64, i64, u32)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![base.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path == base.join("store") {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                todo.push(path.clone());
            }
            all.insert(path, (metadata.size(), metadata.mtime_nsec(), metadata.mode()));
        }
    }
    all
}

/// A member whose name is as it is written, which the tar crate would refuse to write.
fn raw(name: &str, content: &[u8]) -> Layer {
    Layer::default().file(&"x".repeat(name.len()), content).renamed(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_outside() {
    Victim::new().refuses_layer(raw("../../../outside/passwd", b"root::0:0"), "outside").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_becomes_a_link_to_the_outside() {
    let victim = Victim::new();
    let outside = victim.temp.path().join("outside");
    let layer = Layer::default()
        .directory("d", crate::support::image::Attributes { mode: 0o755, ..PLAIN })
        .symlink("d", outside.to_str().unwrap())
        .file("d/passwd", b"root::0:0");
    victim.refuses_layer(layer, "link").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_than_the_digest_says() {
    let image = sample(4);
    let mut other = image.blobs[&image.layers[2]].clone();
    other[1000] ^= 1;
    Victim::new().refuses_answer(&image, image.layers[2].as_str(), Some(other), "digest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_size_than_the_manifest_says() {
    let image = sample(4);
    let longer = [image.blobs[&image.layers[1]].clone(), vec![0; 10]].concat();
    Victim::new().refuses_answer(&image, image.layers[1].as_str(), Some(longer), "bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb() {
    let zeros = vec![0; 65 << 20];
    Victim::new().refuses_layer(Layer::default().file("zeros", &zeros), "67108864").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_without_end() {
    let victim = Victim::new();
    victim.server.add("bad", "1", &sample(5));
    let mut next = Digest::of(b"the last");
    let mut index = Vec::new();
    for _ in 0..20 {
        index =
            json!({"schemaVersion": 2, "manifests": [{"digest": next, "size": 1}]}).to_string().into_bytes();
        next = Digest::of(&index);
        victim.server.put(&format!("/v2/bad/manifests/{next}"), &index);
    }
    let first = index;
    victim.server.behave(move |request| match request.path.ends_with("/bad/manifests/1") {
        true => Answer::Send { status: 200, headers: vec![], body: first.clone() },
        false => Answer::Properly,
    });
    victim.refuses("bad:1", "indexes lead to one another").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_to_the_hosts_disk() {
    let layer = Layer::default().member(EntryType::Block, "innocent", "", PLAIN, b"");
    Victim::new().refuses_layer(layer, "device").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_no_json() {
    let image = sample(4);
    let bad = b"{\"schemaVersion\": 2, \"layers\": [".to_vec();
    Victim::new().refuses_answer(&image, "/manifests/1", Some(bad), "is not usable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_not_there() {
    let image = sample(4);
    Victim::new().refuses_answer(&image, image.layers[0].as_str(), None, "is not in the registry").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_with_two_files_of_one_name() {
    let victim = Victim::new();
    let path = victim.temp.path().join("store/twice.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&path).unwrap());
    for manifest in ["[]", "[{\"Config\":\"c.json\",\"Layers\":[]}]"] {
        let mut header = Header::new_ustar();
        header.set_size(manifest.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "manifest.json", manifest.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    victim.refuses(path.to_str().unwrap(), "two files of the name 'manifest.json'").await;
}
