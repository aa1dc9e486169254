//! Layers under a real overlay mount, compared with what another tool makes of the same image.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tar::EntryType;
use tepui_images::{PullOptions, RootFs, resolve_user};

use crate::support::image::{Attributes, Built, Compression, Layer, PLAIN, build, noise};
use crate::support::{Temp, open, reference, run};

/// All that can be seen of a file from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    pub links: u64,
    device: u64,
    target: Option<PathBuf>,
    content: Option<Vec<u8>>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// A tree by relative path; hard links to one file have the same group.
pub type Tree = BTreeMap<PathBuf, (Seen, Option<PathBuf>)>;

pub fn see(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut first_names = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let mut paths: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let metadata = path.symlink_metadata().unwrap();
            let kind = metadata.file_type();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            if kind.is_dir() {
                todo.push(path.clone());
            }
            let group = (metadata.nlink() > 1 && !kind.is_dir())
                .then(|| first_names.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone());
            let xattrs = xattr::list(&path)
                .unwrap()
                .map(|name| {
                    (
                        name.to_string_lossy().into_owned(),
                        xattr::get(&path, &name).unwrap().unwrap_or_default(),
                    )
                })
                .collect();
            let seen = Seen {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                // Overlayfs and others count subdirectories differently.
                links: if kind.is_dir() { 0 } else { metadata.nlink() },
                device: if kind.is_char_device() || kind.is_block_device() { metadata.rdev() } else { 0 },
                target: kind.is_symlink().then(|| std::fs::read_link(&path).unwrap()),
                content: kind.is_file().then(|| std::fs::read(&path).unwrap()),
                xattrs,
            };
            tree.insert(relative, (seen, group));
        }
    }
    tree
}

/// What the mounted image shows. In a mount namespace of a thread of its own, which goes away with it.
pub fn see_mounted(root_fs: &RootFs, scratch: &Path) -> Tree {
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| scratch.join(name));
    for directory in [&upper, &work, &merged] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let lower = root_fs.lowerdir_option().into_string().unwrap();
    let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("root is needed");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        see(&merged)
    })
    .join()
    .unwrap()
}

pub fn assert_same(actual: &Tree, expected: &Tree) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(actual), names(expected));
    for (path, seen) in actual {
        assert_eq!(seen, &expected[path], "{}", path.display());
    }
}

/// Everything that layers can do to one another, and all kinds of files.
pub fn involved() -> Built {
    let directory = Attributes { mode: 0o755, ..PLAIN };
    let owned = Attributes { mode: 0o750, owner: 1234, modified: 1_400_000_000 };
    // Version 2, effective, permitted: cap_net_bind_service. It holds zeros.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let base = Layer::default()
        .directory("bin", directory)
        .program("bin/tool", &noise(1, 5000))
        .hard_link("bin/alias", "bin/tool")
        .member(
            EntryType::Regular,
            "bin/su",
            "",
            Attributes { mode: 0o6755, owner: 0, modified: 1_300_000_000 },
            b"setuid",
        )
        .xattr("security.capability", &capability)
        .program("bin/ping", b"capable")
        .directory("etc", directory)
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1234:1234::/home/app:/bin/sh\n")
        .file("etc/group", b"app:x:1234:\nextra:x:77:app\n")
        .symlink("etc/link", "../bin/tool")
        .symlink("absolute", "/etc/passwd")
        .directory("gone", directory)
        .file("gone/file", b"hidden by a whiteout of its directory")
        .directory("opaque", directory)
        .file("opaque/old", b"hidden by opacity")
        .directory("opaque/deep", directory)
        .file("opaque/deep/old", b"hidden too")
        .directory("merged", directory)
        .file("merged/low", b"low")
        .file("merged/changed", b"before")
        .file("merged/removed", b"x")
        .directory("was-a-directory", directory)
        .file("was-a-directory/file", b"x")
        .file("was-a-file", b"x")
        .directory("dev", directory)
        .member(EntryType::Char, "dev/null", "", Attributes { mode: 0o666, ..PLAIN }, b"")
        .member(EntryType::Fifo, "dev/fifo", "", owned, b"")
        .directory("home", directory)
        .directory("home/app", owned);
    let second = Layer::default()
        .file(".wh.gone", b"")
        .directory("opaque", owned)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .directory("merged", directory)
        .file("merged/.wh.removed", b"")
        .file("merged/changed", b"after")
        .file("merged/high", b"high")
        .file("was-a-directory", b"now a file")
        .directory("was-a-file", directory)
        .file("was-a-file/now", b"a directory")
        .directory("home", directory)
        .directory("home/app", Attributes { mode: 0o700, owner: 1234, modified: 1_450_000_000 })
        .member(EntryType::Regular, "home/app/own", "", owned, b"mine");
    let third = Layer::default()
        .directory("gone", directory)
        .file("gone/again", b"a new directory where one was removed")
        .directory("etc", directory)
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:4321:1234::/home/app:/bin/sh\n")
        .directory("opaque", owned)
        .file("opaque/newer", b"newer");
    build(
        &[(base, Compression::Gzip), (second, Compression::Gzip), (third, Compression::Gzip)],
        json!({"User": "app"}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mounted_layers_are_what_umoci_unpacks() {
    let temp = Temp::new();
    let layout = temp.path().join("layout");
    involved().write_layout(&layout, "1");
    let bundle = temp.path().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:1", layout.display()), bundle.to_str().unwrap()]);
    let expected = see(&bundle.join("rootfs"));
    assert!(
        expected.contains_key(Path::new("gone/again")) && !expected.contains_key(Path::new("opaque/old")),
        "the comparison is with the right thing"
    );
    assert_eq!(expected[Path::new("bin/ping")].0.xattrs.len(), 1);

    let store = open(&temp.path().join("store"), "https://registry-1.docker.io");
    let image = store.pull(&reference(layout.to_str().unwrap()), PullOptions::default()).await.unwrap();
    let root_fs = store.provision(&image).unwrap();
    let actual = see_mounted(&root_fs, temp.path());
    assert_same(&actual, &expected);
    assert_eq!(actual[Path::new("bin/tool")].1, actual[Path::new("bin/alias")].1);

    let app = resolve_user(&root_fs, &image.config.user).unwrap();
    assert_eq!(
        (app.uid, app.gid, app.additional_gids.as_slice(), app.home.as_str()),
        (4321, 1234, &[77][..], "/home/app")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_layers_fit_into_one_mount() {
    let temp = Temp::new();
    let layers: Vec<_> = (0..100)
        .map(|index| {
            (
                Layer::default()
                    .file(&format!("f{index}"), index.to_string().as_bytes())
                    .file("last", index.to_string().as_bytes()),
                Compression::None,
            )
        })
        .collect();
    // A layer twice, which overlayfs would refuse, and one without content.
    let layers = [layers.clone(), vec![(Layer::default(), Compression::None), layers[3].clone()]].concat();
    let layout = temp.path().join("layout");
    build(&layers, json!({})).write_layout(&layout, "1");
    let store = open(&temp.path().join("store"), "https://registry-1.docker.io");
    let image = store.pull(&reference(layout.to_str().unwrap()), PullOptions::default()).await.unwrap();
    let root_fs = store.provision(&image).unwrap();
    assert!(root_fs.lowerdir_option().len() < 4000, "{}", root_fs.lowerdir_option().len());
    let tree = see_mounted(&root_fs, temp.path());
    assert_eq!(tree.len(), 101);
    assert_eq!(tree[Path::new("last")].0.content.as_deref(), Some(&b"3"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_layers_is_an_empty_root() {
    let temp = Temp::new();
    let layout = temp.path().join("layout");
    build(&[], json!({})).write_layout(&layout, "1");
    let store = open(&temp.path().join("store"), "https://registry-1.docker.io");
    let image = store.pull(&reference(layout.to_str().unwrap()), PullOptions::default()).await.unwrap();
    assert!(see_mounted(&store.provision(&image).unwrap(), temp.path()).is_empty());
}
