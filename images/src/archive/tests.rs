use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::reference::Reference;

const LAYER: &[u8] = &[0; 1024];

fn config() -> Vec<u8> {
    json!({"architecture": Platform::host().architecture, "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": [Digest::of(LAYER)]}}).to_string().into_bytes()
}

fn descriptor(content: &[u8]) -> serde_json::Value {
    json!({"mediaType": "", "digest": Digest::of(content), "size": content.len()})
}

fn blob(content: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", Digest::of(content).hex()), content.to_vec())
}

/// The files of an OCI layout whose image is called `name`.
fn layout(name: &str) -> Vec<(String, Vec<u8>)> {
    let config = config();
    let manifest = json!({"schemaVersion": 2, "config": descriptor(&config), "layers": [descriptor(LAYER)]})
        .to_string()
        .into_bytes();
    let mut entry = descriptor(&manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
    vec![
        ("oci-layout".into(), b"{}".to_vec()),
        ("index.json".into(), index),
        blob(&config),
        blob(&manifest),
        blob(LAYER),
    ]
}

/// The files of a `docker save`, as Docker wrote them up to 24; one layer is a link.
fn saved(tags: &[&str]) -> Vec<(String, Vec<u8>)> {
    let config = config();
    let name = format!("{}.json", Digest::of(&config).hex());
    let manifest =
        json!([{"Config": name, "RepoTags": tags, "Layers": ["one/layer.tar"]}]).to_string().into_bytes();
    vec![(name, config), ("one/layer.tar".into(), LAYER.to_vec()), ("manifest.json".into(), manifest)]
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Case {
    temp: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap() }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.temp.path().join("archive");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, path: &Path, wanted: Wanted<'_>) -> Result<LocalImage, Error> {
        super::open(path, wanted, &Platform::host(), self.temp.path(), 1 << 20)
    }
}

fn check(image: &LocalImage) {
    assert_eq!(image.resolved.id, Digest::of(&config()));
    assert_eq!(image.resolved.config.cmd, ["sh"]);
    assert_eq!(image.layers.len(), 1);
    let mut content = Vec::new();
    image.layers[0].open().unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, LAYER);
    assert_eq!(image.layers[0].size(), LAYER.len() as u64);
}

#[test]
fn all_packings_hold_the_same_image() {
    let case = Case::new();
    for files in [saved(&["busybox:1"]), layout("busybox:1"), [saved(&["busybox:1"]), layout("1")].concat()] {
        let plain = tar(&files);
        check(&case.open(&case.file(&plain), Wanted::Only).unwrap());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        check(
            &case
                .open(&case.file(&gzip.finish().unwrap()), Wanted::Called("busybox:1"))
                .unwrap_or_else(|error| panic!("{error}")),
        );
        check(&case.open(&case.file(&zstd::encode_all(plain.as_slice(), 1).unwrap()), Wanted::Only).unwrap());
    }
    let directory = case.temp.path().join("layout");
    for (name, content) in layout("x") {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    check(&case.open(&directory, Wanted::Called("x")).unwrap());
    assert_eq!(
        fs::read_dir(case.temp.path()).unwrap().count(),
        2,
        "nothing is left in the scratch directory"
    );
}

#[test]
fn links_inside_an_archive_are_followed() {
    let case = Case::new();
    let mut files = saved(&[]);
    files[1].0 = "two/layer.tar".into();
    let mut builder = ::tar::Builder::new(tar(&files)[..tar(&files).len() - 1024].to_vec());
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "one/layer.tar", "../two/layer.tar").unwrap();
    check(&case.open(&case.file(&builder.into_inner().unwrap()), Wanted::Only).unwrap());
}

#[test]
fn images_are_chosen_by_name_tag_and_digest() {
    let case = Case::new();
    let named = |text: &str| match Reference::parse(text).unwrap() {
        Reference::Named(name) => name,
        Reference::Local(_) => panic!("a name"),
    };
    let path = case.file(&tar(&layout("1")));
    check(&case.open(&path, Wanted::Named(&named("busybox:1"))).unwrap());
    check(&case.open(&path, Wanted::Named(&named("busybox:2"))).unwrap());
    assert!(case.open(&path, Wanted::Called("2")).is_err());
    let (_, manifest) = &layout("1")[3];
    check(&case.open(&path, Wanted::Named(&named(&format!("busybox@{}", Digest::of(manifest))))).unwrap());
    assert!(case.open(&path, Wanted::Named(&named(&format!("busybox@{}", Digest::of(b"other"))))).is_err());
    let path = case.file(&tar(&saved(&["a/b:1"])));
    let error =
        case.open(&path, Wanted::Named(&named(&format!("busybox@{}", Digest::of(manifest))))).err().unwrap();
    assert!(error.to_string().contains("by its tag"), "{error}");
}

#[test]
fn damaged_and_foreign_archives_are_refused_with_words() {
    let case = Case::new();
    let change = |mut files: Vec<(String, Vec<u8>)>, index: usize, content: &[u8]| {
        files[index].1 = content.to_vec();
        tar(&files)
    };
    let missing = |mut files: Vec<(String, Vec<u8>)>, index: usize| {
        files.remove(index);
        tar(&files)
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no valid tar", b"not an archive at all".to_vec()),
        ("neither manifest.json", tar(&[("x".into(), b"y".to_vec())])),
        ("older than 1.10", tar(&[("repositories".into(), b"{}".to_vec())])),
        ("manifest.json is not usable", change(saved(&[]), 2, b"{")),
        ("has the digest", change(saved(&[]), 0, &[config(), b" ".to_vec()].concat())),
        ("the layer 'one/layer.tar' is missing", missing(saved(&[]), 1)),
        (".json' is missing", missing(saved(&[]), 0)),
        ("not usable", change(layout("x"), 1, b"[]")),
        ("where", change(layout("x"), 2, b"{}")),
        ("is missing", missing(layout("x"), 3)),
        ("the layer 'blobs/sha256/", missing(layout("x"), 4)),
    ];
    for (words, bytes) in cases {
        let error = case
            .open(&case.file(&bytes), Wanted::Only)
            .err()
            .unwrap_or_else(|| panic!("{words}"))
            .to_string();
        assert!(error.contains(words), "expected '{words}': {error}");
    }
    let bomb = zstd::encode_all(vec![0; 4 << 20].as_slice(), 1).unwrap();
    let error = case.open(&case.file(&bomb), Wanted::Only).err().unwrap().to_string();
    assert!(error.contains("more than"), "{error}");
}
