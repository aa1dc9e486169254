//! What a removal must leave alone. Mounts are made in a thread that has a private mount namespace of its own, and only of directories made for
//! the test, so that a removal gone wrong can harm nothing else.

use nix::sys::stat::Mode;

use super::*;
use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` where mounts are seen by nobody else, and vanish at its end. Needs root.
fn privately<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        test()
    });
    thread.join().unwrap()
}

fn bind(source: &Path, target: &Path) {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[test]
fn a_tree_goes_with_all_kinds_of_entries_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/file"), "x").unwrap();
    symlink(&outside, tree.join("a/link")).unwrap();
    symlink("/nowhere", tree.join("broken")).unwrap();
    nix::unistd::mkfifo(&tree.join("a/b/fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    for n in 0..3000 {
        fs::write(tree.join(format!("a/b/c/{n}")), "").unwrap();
    }
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    remove_tree(&tree).unwrap();
    remove_tree(&tree.join("below/what/is/gone")).unwrap();
}

#[test]
fn a_link_or_a_file_is_not_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for name in ["link", "file"] {
        let error = remove_tree(&dir.path().join(name)).unwrap_err();
        assert!(matches!(error, RemoveTreeError::NotADirectory(_)), "{error}");
    }
    assert!(dir.path().join("real").is_dir() && dir.path().join("file").is_file());
}

#[test]
fn paths_that_say_too_little_are_refused() {
    for path in ["/", "/etc", "relative/path", "/tmp/..", "/tmp/../etc", "", "."] {
        let error = remove_tree(Path::new(path)).unwrap_err();
        assert!(matches!(error, RemoveTreeError::Path(_)), "{path}: {error}");
    }
}

/// Deeper than a path may be long, and than the stack could follow.
#[test]
fn depth_has_no_limit() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let open = |at: &OwnedFd, name: &CStr| open_child(at, name).unwrap();
    let mut at = OwnedFd::from(fs::File::open(&tree).unwrap());
    for _ in 0..1_000 {
        nix::sys::stat::mkdirat(&at, c"deep", Mode::from_bits_truncate(0o700)).unwrap();
        at = open(&at, c"deep");
    }
    // A name that the removal itself would choose.
    fs::create_dir_all(tree.join(".removing-1/full")).unwrap();
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn it_stops_at_mount_points() {
    // Made and removed outside the namespace.
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().to_owned();
    privately(move || {
        let treasure = base.join("treasure");
        fs::create_dir_all(treasure.join("below")).unwrap();
        fs::write(treasure.join("below/file"), "kept").unwrap();
        type Case<'a> = (&'a str, &'a dyn Fn(&Path));
        let cases: [Case<'_>; 4] = [
            ("deep below", &|tree| {
                fs::create_dir_all(tree.join("a/b")).unwrap();
                bind(&treasure, &tree.join("a/b"));
            }),
            ("the tree itself", &|tree| bind(&treasure, tree)),
            ("a file", &|tree| {
                fs::write(tree.join("file"), "").unwrap();
                bind(&treasure.join("below/file"), &tree.join("file"));
            }),
            ("another file system", &|tree| {
                mount(Some("tmpfs"), tree, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
                fs::create_dir(tree.join("inside")).unwrap();
            }),
        ];
        for (index, (what, make)) in cases.iter().enumerate() {
            let tree = base.join(format!("tree{index}"));
            fs::create_dir(&tree).unwrap();
            make(&tree);
            let error = remove_tree(&tree).unwrap_err();
            assert!(matches!(error, RemoveTreeError::MountPoint(_)), "{what}: {error}");
            assert_eq!(fs::read_to_string(treasure.join("below/file")).unwrap(), "kept", "{what}");
        }
    });
}

#[test]
fn mounts_of_other_namespaces_are_out_of_reach() {
    let dir = tempfile::tempdir().unwrap();
    let treasure = dir.path().join("treasure");
    fs::create_dir(&treasure).unwrap();
    fs::write(treasure.join("file"), "kept").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("rootfs")).unwrap();
    let (mounted, is_mounted) = std::sync::mpsc::channel();
    let (leave, may_leave) = std::sync::mpsc::channel::<()>();
    let (source, target) = (treasure.clone(), tree.join("rootfs"));
    let inside = std::thread::spawn(move || {
        privately(move || {
            bind(&source, &target);
            assert!(target.join("file").exists());
            mounted.send(()).unwrap();
            let _ = may_leave.recv();
        });
    });
    is_mounted.recv().unwrap();
    assert!(!tree.join("rootfs/file").exists(), "the mount is private");
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    assert_eq!(fs::read_to_string(treasure.join("file")).unwrap(), "kept");
    drop(leave);
    inside.join().unwrap();
}

#[test]
fn strictly_no_parent_may_be_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(base.join("host/precious")).unwrap();
    std::fs::create_dir(base.join("sandbox")).unwrap();
    std::os::unix::fs::symlink(base.join("host"), base.join("sandbox/containers")).unwrap();
    let reached = base.join("sandbox/containers/precious");
    assert!(matches!(remove_tree_strictly(&reached), Err(RemoveTreeError::NotADirectory(_))));
    assert!(base.join("host/precious").is_dir());
    remove_tree(&reached).unwrap();
    assert!(!base.join("host/precious").exists());
}
