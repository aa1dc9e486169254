//! Images that are copied, compared with the same ones under a real overlay mount.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde_json::json;
use tepui_images::{PullOptions, RootFs, copy_layers};

use crate::overlay::{assert_same, involved, see, see_mounted};
use crate::support::image::{Compression, Layer, build};
use crate::support::{Temp, open, reference};

async fn provisioned(temp: &Temp, built: &crate::support::image::Built) -> RootFs {
    let layout = temp.path().join("layout");
    built.write_layout(&layout, "1");
    let store = open(&temp.path().join("store"), "https://registry-1.docker.io");
    let image = store.pull(&reference(layout.to_str().unwrap()), PullOptions::default()).await.unwrap();
    store.provision(&image).unwrap()
}

fn copied(temp: &Temp, root_fs: &RootFs) -> crate::overlay::Tree {
    let target = temp.path().join("copy");
    std::fs::create_dir(&target).unwrap();
    copy_layers(root_fs, &target, &|| false).unwrap();
    see(&target)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_is_what_the_mounted_layers_show() {
    let temp = Temp::new();
    let root_fs = provisioned(&temp, &involved()).await;
    // What no archive brings: another time for reading, and attributes of links and directories.
    let [_, .., base] = root_fs.lower() else { panic!("there are three layers") };
    let base = base.canonicalize().unwrap();
    let (read, written) = (TimeSpec::new(1_111_111_111, 1), TimeSpec::new(1_222_222_222, 2));
    for name in ["bin/tool", "absolute", "dev/fifo", "merged/low"] {
        utimensat(AT_FDCWD, &base.join(name), &read, &written, UtimensatFlags::NoFollowSymlink).unwrap();
    }
    for name in ["absolute", "dev/fifo", "dev/null", "bin", "bin/tool"] {
        xattr::set(base.join(name), "trusted.mark", name.as_bytes()).unwrap();
    }
    xattr::set(base.join("bin/tool"), "user.mark", b"user").unwrap();

    let mounted = see_mounted(&root_fs, temp.path());
    assert!(mounted.contains_key(Path::new("gone/again")) && !mounted.contains_key(Path::new("opaque/old")));
    assert_eq!(mounted[Path::new("bin/tool")].0.xattrs.len(), 2);
    let actual = copied(&temp, &root_fs);
    assert_same(&actual, &mounted);
    let tool = Path::new("bin/tool");
    assert_eq!((&actual[tool].1, actual[tool].0.links), (&actual[Path::new("bin/alias")].1, 2));
    // Of its own: nobody else sees what is written to it.
    let copy = temp.path().join("copy/bin/tool");
    assert_ne!(copy.metadata().unwrap().ino(), base.join("bin/tool").metadata().unwrap().ino());
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(&copy, "mine").unwrap();
    assert_eq!(see_mounted(&root_fs, &temp.path().join("again")), mounted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_layers_are_copied() {
    let temp = Temp::new();
    let layers: Vec<_> = (0..100_u32)
        .map(|index| {
            let text = index.to_string();
            let layer =
                Layer::default().file(&format!("f{index}"), text.as_bytes()).file("last", text.as_bytes());
            // Every tenth takes away what the one before it brought.
            let layer = match index {
                0 => layer,
                index if index % 10 == 0 => layer.file(&format!(".wh.f{}", index - 1), b""),
                _ => layer,
            };
            (layer, Compression::None)
        })
        .collect();
    let root_fs = provisioned(&temp, &build(&layers, json!({}))).await;
    let mounted = see_mounted(&root_fs, temp.path());
    assert_eq!(mounted.len(), 101 - 9);
    assert_same(&copied(&temp, &root_fs), &mounted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_an_image_without_layers_is_empty() {
    let temp = Temp::new();
    let root_fs = provisioned(&temp, &build(&[], json!({}))).await;
    assert!(copied(&temp, &root_fs).is_empty());
}
