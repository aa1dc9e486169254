use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{makedev, mknod};

use super::*;

/// Layers in a directory, the topmost first, and one to copy to.
struct Stage {
    top: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Stage {
    fn new(layers: usize) -> Self {
        let top = tempfile::tempdir().unwrap();
        let layers: Vec<_> = (0..layers).map(|number| top.path().join(number.to_string())).collect();
        for made in layers.iter().chain([&top.path().join("copy")]) {
            std::fs::create_dir(made).unwrap();
        }
        Self { top, layers }
    }

    fn target(&self) -> PathBuf {
        self.top.path().join("copy")
    }

    fn copy(&self) -> Result<Copied, CopyError> {
        self.copy_until(&|| false)
    }

    fn copy_until(&self, stop: &dyn Fn() -> bool) -> Result<Copied, CopyError> {
        copy_layers(&RootFs::of_directories(self.layers.clone()).unwrap(), &self.target(), stop)
    }

    /// A file, with the directories above.
    fn file(&self, layer: usize, path: &str, content: &str) -> PathBuf {
        let path = self.layers[layer].join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn whiteout(&self, layer: usize, path: &str) {
        let path = self.layers[layer].join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.target().join(path)).ok()
    }
}

#[test]
fn the_topmost_layer_decides_and_hides() {
    let stage = Stage::new(3);
    stage.file(2, "both", "low");
    stage.file(0, "both", "high");
    stage.file(2, "gone/file", "");
    stage.whiteout(1, "gone");
    // Below the whiteout nothing comes back but what is above it.
    stage.file(2, "anew/old", "");
    stage.whiteout(1, "anew");
    stage.file(0, "anew/new", "new");
    stage.file(2, "opaque/old", "");
    stage.file(1, "opaque/new", "new");
    xattr::set(stage.layers[1].join("opaque"), "trusted.overlay.opaque", b"y").unwrap();
    stage.file(0, "opaque/newer", "newer");
    stage.file(2, "dir-then-file/x", "");
    stage.file(1, "dir-then-file", "file");
    stage.file(2, "file-then-dir", "");
    stage.file(1, "file-then-dir/x", "dir");
    // A file hides directories that are below it from one that is above it.
    stage.file(2, "cut/low", "");
    stage.file(1, "cut", "");
    stage.file(0, "cut/high", "high");
    let copied = stage.copy().unwrap();
    let shown = |path: &str| {
        let mut names: Vec<_> = std::fs::read_dir(stage.target().join(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(shown(""), "anew both cut dir-then-file file-then-dir opaque");
    assert_eq!(
        (shown("anew"), shown("cut"), shown("opaque")),
        ("new".into(), "high".into(), "new newer".into())
    );
    assert_eq!(stage.read("both").as_deref(), Some("high"));
    assert_eq!(stage.read("dir-then-file").as_deref(), Some("file"));
    assert_eq!(stage.read("file-then-dir/x").as_deref(), Some("dir"));
    assert_eq!(xattr::list(stage.target().join("opaque")).unwrap().count(), 0, "marks are the store's");
    assert_eq!(copied.entries, 11);
}

#[test]
fn links_in_layers_lead_nowhere() {
    let stage = Stage::new(2);
    let outside = tempfile::tempdir().unwrap();
    // In the lower layer a link, in the upper one a directory of that name, and the other way round.
    symlink(outside.path(), stage.layers[1].join("a")).unwrap();
    stage.file(0, "a/file", "");
    symlink(outside.path(), stage.layers[0].join("b")).unwrap();
    stage.file(1, "b/file", "");
    symlink("../../../..", stage.layers[1].join("up")).unwrap();
    stage.copy().unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(stage.target().join("a/file").is_file());
    assert_eq!(std::fs::read_link(stage.target().join("b")).unwrap(), outside.path());
    assert_eq!(std::fs::read_link(stage.target().join("up")).unwrap(), Path::new("../../../.."));
}

#[test]
fn all_that_is_known_of_a_file_is_kept() {
    let stage = Stage::new(1);
    let program = stage.file(0, "bin/su", "setuid");
    std::os::unix::fs::chown(&program, Some(12), Some(34)).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o6711)).unwrap();
    xattr::set(&program, "trusted.mark", b"\0value").unwrap();
    std::fs::hard_link(&program, stage.layers[0].join("bin/alias")).unwrap();
    std::fs::create_dir(stage.layers[0].join("aaa")).unwrap();
    std::fs::hard_link(&program, stage.layers[0].join("aaa/far")).unwrap();
    let fifo = stage.layers[0].join("fifo");
    mknod(&fifo, SFlag::S_IFIFO, Mode::from_bits_truncate(0o622), 0).unwrap();
    xattr::set(&fifo, "trusted.mark", b"fifo").unwrap();
    let null = stage.layers[0].join("null");
    mknod(&null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    let link = stage.layers[0].join("link");
    symlink("nowhere", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(56), Some(78)).unwrap();
    let times = [TimeSpec::new(1_000_000_000, 5), TimeSpec::new(1_200_000_000, 123_456_789)];
    for path in [&program, &fifo, &link, &stage.layers[0].join("bin")] {
        utimensat(nix::fcntl::AT_FDCWD, path, &times[0], &times[1], UtimensatFlags::NoFollowSymlink).unwrap();
    }
    std::fs::set_permissions(stage.layers[0].join("bin"), std::fs::Permissions::from_mode(0o3750)).unwrap();
    std::fs::set_permissions(stage.target(), std::fs::Permissions::from_mode(0o701)).unwrap();
    stage.copy().unwrap();
    for name in ["bin", "bin/su", "fifo", "null", "link"] {
        let seen = |root: &Path| {
            let seen = std::fs::symlink_metadata(root.join(name)).unwrap();
            let links = if seen.is_dir() { 0 } else { seen.nlink() };
            (seen.mode(), seen.uid(), seen.gid(), (seen.mtime(), seen.mtime_nsec()), links, seen.rdev())
        };
        assert_eq!(seen(&stage.target()), seen(&stage.layers[0]), "{name}");
    }
    let copied = |name: &str| std::fs::symlink_metadata(stage.target().join(name)).unwrap();
    assert_eq!(copied("bin/su").ino(), copied("bin/alias").ino());
    assert_eq!(copied("bin/su").ino(), copied("aaa/far").ino());
    assert_eq!(copied("link").atime(), 1_000_000_000);
    assert!(copied("fifo").file_type().is_fifo());
    assert_eq!(xattr::get(stage.target().join("bin/su"), "trusted.mark").unwrap().unwrap(), b"\0value");
    assert_eq!(xattr::get(stage.target().join("fifo"), "trusted.mark").unwrap().unwrap(), b"fifo");
    assert_eq!(stage.target().metadata().unwrap().mode() & 0o7777, 0o701, "the root's is the caller's");
}

#[test]
fn a_default_access_list_is_kept_and_given_to_nobody() {
    let stage = Stage::new(1);
    let file = stage.file(0, "dir/file", "");
    // Version 2; user::rwx, group::r-x, mask::rwx, other::r-x, and user 1234 rwx.
    let entry = |tag: u16, bits: u16, id: u32| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(2, 7, 1234),
        entry(4, 5, u32::MAX),
        entry(16, 7, u32::MAX),
        entry(32, 5, u32::MAX),
    ]
    .concat();
    xattr::set(stage.layers[0].join("dir"), "system.posix_acl_default", &list).unwrap();
    stage.copy().unwrap();
    let copied = stage.target().join("dir");
    assert_eq!(xattr::get(&copied, "system.posix_acl_default").unwrap().unwrap(), list);
    assert_eq!(xattr::list(copied.join("file")).unwrap().count(), 0);
    assert_eq!(copied.join("file").metadata().unwrap().mode(), file.metadata().unwrap().mode());
}

#[test]
fn it_ends_soon_when_it_is_given_up() {
    let stage = Stage::new(1);
    for number in 0..50 {
        stage.file(0, &format!("file{number:02}"), "x");
    }
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 20
    };
    assert!(matches!(stage.copy_until(&stop), Err(CopyError::GivenUp)));
    assert!(std::fs::read_dir(stage.target()).unwrap().count() < 20);
    // In the middle of one file, too.
    let large = Stage::new(1);
    let file = File::create(large.layers[0].join("large")).unwrap();
    file.set_len(8 * PIECE).unwrap();
    asked.set(18);
    assert!(matches!(large.copy_until(&stop), Err(CopyError::GivenUp)));
    assert!(large.target().join("large").metadata().unwrap().len() <= PIECE);
}

/// In a thread with mounts of its own: copies from the disk to a tmpfs of so many bytes.
fn copy_to_memory(stage: &Stage, size: usize, look: impl FnOnce(Result<Copied, CopyError>) + Send) {
    let target = stage.target();
    let layers = RootFs::of_directories(stage.layers.clone()).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("root is needed");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let options = format!("size={size}");
            mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
            look(copy_layers(&layers, &target, &|| false));
            umount2(&target, MntFlags::MNT_DETACH).unwrap();
        });
        thread.join().unwrap();
    });
}

#[test]
fn from_one_file_system_to_another() {
    let stage = Stage::new(1);
    let content: String = (0..200_000).map(|number: u32| char::from(b'a' + (number % 23) as u8)).collect();
    stage.file(0, "dir/file", &content);
    stage.file(0, "empty", "");
    copy_to_memory(&stage, 8 << 20, |copied| {
        assert_eq!(copied.unwrap(), Copied { entries: 3, bytes: 200_000 });
        assert_eq!(stage.read("dir/file").unwrap(), content);
        assert_eq!(stage.read("empty").unwrap(), "");
    });
}

#[test]
fn a_full_disk_is_told() {
    let stage = Stage::new(1);
    stage.file(0, "opt/large", &"x".repeat(4 << 20));
    copy_to_memory(&stage, 1 << 20, |copied| {
        let error = copied.unwrap_err().to_string();
        assert_eq!(error, "cannot copy 'opt/large': No space left on device (os error 28)");
    });
}

#[test]
fn a_tree_of_any_depth_is_copied() {
    let stage = Stage::new(2);
    let deep = "d/".repeat(1500);
    stage.file(1, &format!("{deep}low"), "low");
    stage.file(0, &format!("{deep}high"), "high");
    stage.copy().unwrap();
    assert_eq!(stage.read(&format!("{deep}low")).as_deref(), Some("low"));
    assert_eq!(stage.read(&format!("{deep}high")).as_deref(), Some("high"));
}
