use super::*;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::rootfs::LayerPath;
use proptest::prelude::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:1:1::/:\napp:x:1000:100:An app:/srv/app:/bin/sh\n77:x:7:8::/:\nnohome:x:9:9\n";
const GROUP: &str = "root:x:0:\nusers:x:100:app\nwheel:x:10:root,app\n+nis\ndocker:x:999:other,app\n";

#[test]
fn names_and_ids_are_found() {
    let app = ResolvedUser {
        uid: 1000,
        gid: 100,
        additional_gids: vec![10, 999],
        name: Some("app".into()),
        home: "/srv/app".into(),
    };
    assert_eq!(resolve(PASSWD, GROUP, "app").unwrap(), app);
    assert_eq!(resolve(PASSWD, GROUP, "1000").unwrap(), app);
    assert_eq!(resolve(PASSWD, GROUP, "app:").unwrap(), app);
    let wheel = resolve(PASSWD, GROUP, "app:wheel").unwrap();
    assert_eq!((wheel.gid, wheel.additional_gids.as_slice()), (10, &[][..]));
    let stranger = resolve(PASSWD, GROUP, "5000:6000").unwrap();
    assert_eq!((stranger.uid, stranger.gid, stranger.name, stranger.home.as_str()), (5000, 6000, None, "/"));
    assert_eq!(resolve(PASSWD, GROUP, "5000").unwrap().gid, 0);
    assert_eq!(resolve("", "", "").unwrap().uid, 0);
    assert_eq!(resolve(PASSWD, GROUP, "77").unwrap().uid, 7);
    assert_eq!(resolve(PASSWD, GROUP, "nohome").unwrap().home, "/");
}

#[test]
fn unknown_names_are_errors() {
    assert!(matches!(resolve(PASSWD, GROUP, "nobody"), Err(UserError::NoUser { name }) if name == "nobody"));
    assert!(
        matches!(resolve(PASSWD, GROUP, "app:nogroup"), Err(UserError::NoGroup { name }) if name == "nogroup")
    );
    assert!(resolve("", "", "4294967296").is_err());
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn root_of(layers: &[PathBuf]) -> RootFs {
    let layers: Vec<_> =
        layers.iter().map(|path| LayerPath { diff_id: Digest::of(b""), path: path.clone() }).collect();
    RootFs::new(&layers, Path::new("/nonexistent")).unwrap()
}

fn whiteout(path: &Path) {
    use nix::sys::stat::{Mode, SFlag, mknod};
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
}

#[test]
fn the_topmost_layer_decides_and_links_stay_inside() {
    let temp = tempfile::tempdir().unwrap();
    let [low, middle, top] = ["low", "middle", "top"].map(|name| temp.path().join(name));
    write(&low, "etc/passwd", "app:x:1:1::/low:\n");
    write(&low, "etc/group", "wheel:x:10:app\n");
    write(&middle, "real/passwd", "app:x:2:2::/middle:\n");
    std::fs::create_dir_all(middle.join("etc")).unwrap();
    std::fs::create_dir_all(&top).unwrap();
    assert_eq!(resolve_user(&root_of(&[low.clone(), middle.clone(), top.clone()]), "app").unwrap().uid, 1);

    // An absolute link, and one that climbs above the root, lead to the image's own file.
    symlink("/real/passwd", middle.join("etc/passwd")).unwrap();
    let all = root_of(&[low.clone(), middle.clone(), top.clone()]);
    let app = resolve_user(&all, "app:wheel").unwrap();
    assert_eq!((app.uid, app.gid, app.home.as_str()), (2, 10, "/middle"));
    std::fs::create_dir_all(top.join("etc")).unwrap();
    symlink("../../../../real/passwd", top.join("etc/passwd")).unwrap();
    assert_eq!(resolve_user(&all, "app").unwrap().uid, 2);

    // Hidden by a whiteout, nothing is left; an opaque directory hides the group file too.
    std::fs::remove_file(top.join("etc/passwd")).unwrap();
    whiteout(&top.join("etc/passwd"));
    assert!(matches!(resolve_user(&all, "app"), Err(UserError::NoUser { .. })));
    assert_eq!(resolve_user(&all, "5:wheel").unwrap().gid, 10);
    xattr::set(top.join("etc"), "trusted.overlay.opaque", b"y").unwrap();
    assert!(matches!(resolve_user(&all, "5:wheel"), Err(UserError::NoGroup { .. })));
}

#[test]
fn loops_and_odd_files_do_no_harm() {
    let temp = tempfile::tempdir().unwrap();
    let layer = temp.path().join("layer");
    std::fs::create_dir_all(layer.join("etc")).unwrap();
    symlink("passwd", layer.join("etc/passwd")).unwrap();
    assert!(matches!(resolve_user(&root_of(std::slice::from_ref(&layer)), "0"), Err(UserError::Read(_))));
    std::fs::remove_file(layer.join("etc/passwd")).unwrap();
    nix::unistd::mkfifo(&layer.join("etc/passwd"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(resolve_user(&root_of(&[layer]), "0").unwrap().home, "/");
}

proptest! {
    #[test]
    fn resolving_never_panics(passwd in "[a-z0-9:,\n]{0,100}", group in "[a-z0-9:,\n]{0,100}", spec in "\\PC{0,20}") {
        let _ = resolve(&passwd, &group, &spec);
    }
}
