use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use ::tar::{EntryType, Header};
use proptest::prelude::*;

use super::*;

/// A tar in the making, with names that the `tar` crate itself would refuse.
#[derive(Default, Clone)]
pub(super) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(super) fn member(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, name, "", content)
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.member(EntryType::Directory, name, "", b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, name, target, b"")
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Link, name, target, b"")
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// Unpacks into `<temp>/layer`.
    fn unpack(self, limits: &UnpackLimits) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("layer");
        fs::create_dir(&root).unwrap();
        let bytes = self.finish();
        let expected =
            Expected { diff_id: Digest::of(&bytes), blob: Some((Digest::of(&bytes), bytes.len() as u64)) };
        let result = unpack_layer(bytes.as_slice(), &root, &expected, limits);
        (temp, result)
    }

    fn refused(self) -> UnpackError {
        let (temp, result) = self.unpack(&UnpackLimits::default());
        let outside: Vec<_> =
            fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside, ["layer"], "nothing is written beside the layer");
        result.unwrap_err()
    }
}

#[test]
fn names_that_lead_outside_are_refused() {
    for name in ["../x", "a/../../x", "/../x", "/etc/../../x", "..", "a/..", "./../x", "//.."] {
        assert!(
            matches!(Tar::default().file(name, b"evil").refused(), UnpackError::Outside { .. }),
            "{name}"
        );
        assert!(matches!(Tar::default().symlink(name, "x").refused(), UnpackError::Outside { .. }), "{name}");
    }
    assert!(matches!(Tar::default().file("", b"evil").refused(), UnpackError::Outside { .. }));
    // The root itself can only be a directory.
    for root in [".", "./", "/"] {
        assert!(
            matches!(Tar::default().symlink(root, "/tmp").refused(), UnpackError::RootKind { .. }),
            "{root}"
        );
    }
}

#[test]
fn absolute_names_begin_at_the_layers_root() {
    let (temp, result) = Tar::default()
        .directory("/etc/")
        .file("/etc/x", b"content")
        .file("//etc/y", b"more")
        .hard_link("again", "/etc/x")
        .file("/.wh.gone", b"")
        .unpack(&UnpackLimits::default());
    result.unwrap();
    let layer = temp.path().join("layer");
    assert_eq!(fs::read(layer.join("etc/x")).unwrap(), b"content");
    assert_eq!(fs::read(layer.join("etc/y")).unwrap(), b"more");
    assert_eq!(layer.join("again").metadata().unwrap().ino(), layer.join("etc/x").metadata().unwrap().ino());
    assert!(is_whiteout(&layer.join("gone")));
}

#[test]
fn the_root_gets_what_its_member_says() {
    for name in ["/", "//", ".", "./", "/."] {
        let (temp, result) =
            Tar::default().directory(name).file("file", b"").unpack(&UnpackLimits::default());
        result.unwrap();
        let root = temp.path().join("layer").metadata().unwrap();
        assert_eq!(
            (root.uid(), root.gid(), root.mode() & 0o7777, root.mtime()),
            (1000, 1000, 0o644, 1_600_000_000),
            "{name}"
        );
    }
}

/// As umoci writes them: 519 bytes for a file of seven.
#[test]
fn a_layer_may_end_with_its_last_byte_of_content() {
    let unpack = |bytes: &[u8]| {
        let temp = tempfile::tempdir().unwrap();
        let expected = Expected { diff_id: Digest::of(bytes), blob: None };
        let result = unpack_layer(bytes, temp.path(), &expected, &UnpackLimits::default());
        result.map(|unpacked| (unpacked, fs::read(temp.path().join("file")).unwrap()))
    };
    let bytes = Tar::default().file("file", b"content").finish();
    let (unpacked, content) = unpack(&bytes[..519]).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (1, 519));
    assert_eq!(content, b"content");
    assert!(matches!(unpack(&bytes[..518]), Err(UnpackError::Stream(_))));
}

#[test]
fn nothing_is_written_through_a_symbolic_link() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().to_str().unwrap();
    for target in [outside, "..", ".", "/"] {
        let links = || Tar::default().symlink("a", target);
        assert!(
            matches!(links().file("a/x", b"evil").refused(), UnpackError::NotThroughDirectories { .. }),
            "{target}"
        );
        assert!(
            matches!(links().directory("a/x").refused(), UnpackError::NotThroughDirectories { .. }),
            "{target}"
        );
        assert!(
            matches!(links().file("a/.wh.x", b"").refused(), UnpackError::NotThroughDirectories { .. }),
            "{target}"
        );
        assert!(
            matches!(
                links().file("a/.wh..wh..opq", b"").refused(),
                UnpackError::NotThroughDirectories { .. }
            ),
            "{target}"
        );
        assert!(matches!(
            links().file("b/c/x", b"").symlink("b/d", "../a").file("b/d/x", b"").refused(),
            UnpackError::NotThroughDirectories { .. }
        ));
    }
    assert!(matches!(
        Tar::default().file("f", b"").file("f/x", b"").refused(),
        UnpackError::NotThroughDirectories { .. }
    ));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    // The link itself is replaced, and not what it points to.
    let victim = temp.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let (unpacked, result) = Tar::default()
        .symlink("a", victim.to_str().unwrap())
        .file("a", b"new")
        .unpack(&UnpackLimits::default());
    result.unwrap();
    assert_eq!(fs::read_to_string(unpacked.path().join("layer/a")).unwrap(), "new");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn hard_links_to_what_the_layer_lacks_are_refused() {
    assert!(matches!(Tar::default().hard_link("a", "../x").refused(), UnpackError::Outside { .. }));
    assert!(matches!(Tar::default().hard_link("a", "/../x").refused(), UnpackError::Outside { .. }));
    // The machine has the last of these, and the layer has not.
    for target in ["missing", "missing/x", ".", "a", "/", "/etc/passwd"] {
        assert!(
            matches!(Tar::default().hard_link("a", target).refused(), UnpackError::LinkTarget { .. }),
            "{target}"
        );
    }
    assert!(matches!(
        Tar::default().directory("d").hard_link("a", "d").refused(),
        UnpackError::LinkTarget { .. }
    ));
    assert!(matches!(
        Tar::default().symlink("l", "/etc").hard_link("a", "l/passwd").refused(),
        UnpackError::LinkTarget { .. }
    ));
    // A hard link to a symbolic link is a second name of the link.
    let (temp, result) =
        Tar::default().symlink("l", "/etc/passwd").hard_link("a", "l").unpack(&UnpackLimits::default());
    result.unwrap();
    assert_eq!(fs::read_link(temp.path().join("layer/a")).unwrap().to_str(), Some("/etc/passwd"));
}

#[test]
fn members_get_what_the_archive_says() {
    let (temp, result) = Tar::default()
        .directory("d/")
        .file("d/file", b"content")
        .hard_link("d/again", "./d/file")
        .symlink("d/link", "file")
        .member(EntryType::Fifo, "d/fifo", "", b"")
        .member(EntryType::Char, "d/null", "", b"")
        .file("implied/parent/file", b"")
        .unpack(&UnpackLimits::default());
    assert_eq!(result.unwrap().entries, 7);
    let layer = temp.path().join("layer");
    let file = layer.join("d/file").metadata().unwrap();
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777, file.mtime(), file.nlink()),
        (1000, 1000, 0o644, 1_600_000_000, 2)
    );
    assert_eq!(layer.join("d").metadata().unwrap().mtime(), 1_600_000_000);
    let link = layer.join("d/link").symlink_metadata().unwrap();
    assert_eq!((link.uid(), link.mtime()), (1000, 1_600_000_000));
    assert!(layer.join("d/fifo").metadata().unwrap().file_type().is_fifo());
    let null = layer.join("d/null").metadata().unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), nix::sys::stat::makedev(1, 3));
    let implied = layer.join("implied/parent").metadata().unwrap();
    assert_eq!((implied.uid(), implied.mode() & 0o7777), (0, 0o755));
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_char_device() && metadata.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    xattr::get(path, "trusted.overlay.opaque").unwrap().as_deref() == Some(b"y")
}

#[test]
fn whiteouts_take_overlays_form() {
    let (temp, result) = Tar::default()
        .file("d/.wh.gone", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/new", b"")
        .file(".wh.replaced", b"")
        .directory("replaced")
        .file("own", b"kept")
        .file(".wh.own", b"")
        .file(".wh.file", b"")
        .file("file", b"new")
        .directory("dir")
        .file(".wh.dir", b"")
        .file(".wh.parent", b"")
        .file("parent/child", b"")
        .file(".wh..wh.plnk/1", b"")
        .unpack(&UnpackLimits::default());
    result.unwrap();
    let layer = temp.path().join("layer");
    assert!(is_whiteout(&layer.join("d/gone")));
    assert!(is_opaque(&layer.join("o")) && !is_opaque(&layer.join("d")));
    assert!(
        is_opaque(&layer.join("replaced"))
            && is_opaque(&layer.join("dir"))
            && is_opaque(&layer.join("parent"))
    );
    assert_eq!(fs::read(layer.join("own")).unwrap(), b"kept");
    assert_eq!(fs::read(layer.join("file")).unwrap(), b"new");
    assert!(layer.join("parent/child").is_file());
}

#[test]
fn odd_whiteouts_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        assert!(matches!(Tar::default().file(name, b"").refused(), UnpackError::Whiteout { .. }), "{name}");
    }
}

#[test]
fn an_image_cannot_direct_overlayfs() {
    let mut tar = Tar::default();
    let record = |text: &str| format!("{} {text}\n", text.len() + 4);
    let records =
        [record("SCHILY.xattr.trusted.overlay.redirect=/x"), record("SCHILY.xattr.user.note=fine")].concat();
    tar = tar.member(EntryType::XHeader, "pax", "", records.as_bytes()).directory("d");
    let (temp, result) = tar.unpack(&UnpackLimits::default());
    result.unwrap();
    let directory = temp.path().join("layer/d");
    assert_eq!(xattr::get(&directory, "trusted.overlay.redirect").unwrap(), None);
    assert_eq!(xattr::get(&directory, "user.note").unwrap().as_deref(), Some(&b"fine"[..]));
}

#[test]
fn later_members_replace_earlier_ones() {
    let (temp, result) = Tar::default()
        .file("a/deep/file", b"1")
        .file("a/deep/file", b"2")
        .symlink("a/deep/link", "x")
        .file("a", b"now a file")
        .directory("b")
        .file("b/kept", b"")
        .directory("b")
        .file("c", b"")
        .directory("c")
        .unpack(&UnpackLimits::default());
    result.unwrap();
    let layer = temp.path().join("layer");
    assert_eq!(fs::read(layer.join("a")).unwrap(), b"now a file");
    assert!(layer.join("b/kept").is_file() && layer.join("c").is_dir());
    assert!(!is_opaque(&layer.join("c")));
}

#[test]
fn limits_hold() {
    let limits = UnpackLimits { max_entries: 3, max_bytes: 100_000, device_nodes: DeviceNodes::Refuse };
    let files =
        |count: usize| (0..count).fold(Tar::default(), |tar, index| tar.file(&format!("f{index}"), b""));
    assert!(files(3).unpack(&limits).1.is_ok());
    assert!(matches!(files(4).unpack(&limits).1, Err(UnpackError::TooManyEntries { limit: 3 })));
    assert!(matches!(
        Tar::default().file("big", &[0; 200_000]).unpack(&limits).1,
        Err(UnpackError::TooLarge { .. })
    ));
    assert!(matches!(
        Tar::default().file("a", &[0; 60_000]).file("b", &[0; 60_000]).unpack(&limits).1,
        Err(UnpackError::TooLarge { .. })
    ));
    assert!(matches!(
        Tar::default().member(EntryType::Block, "sda", "", b"").unpack(&limits).1,
        Err(UnpackError::Device { .. })
    ));
    assert!(Tar::default().member(EntryType::Fifo, "fifo", "", b"").unpack(&limits).1.is_ok());

    // A bomb: what follows the archive's end counts as well.
    let mut bomb = files(1).finish();
    bomb.resize(10_000_000, 0);
    let blob = zstd::encode_all(bomb.as_slice(), 3).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let expected = Expected { diff_id: Digest::of(&bomb), blob: None };
    assert!(matches!(
        unpack_layer(blob.as_slice(), temp.path(), &expected, &limits),
        Err(UnpackError::TooLarge { .. })
    ));
}

#[test]
fn digests_and_sizes_are_checked() {
    let plain = Tar::default().file("a", b"content").finish();
    let blob = zstd::encode_all(plain.as_slice(), 3).unwrap();
    let unpack = |blob: &[u8], diff_id: Digest, promised: (Digest, u64)| {
        let temp = tempfile::tempdir().unwrap();
        unpack_layer(blob, temp.path(), &Expected { diff_id, blob: Some(promised) }, &UnpackLimits::default())
    };
    let right = (Digest::of(&blob), blob.len() as u64);
    assert!(unpack(&blob, Digest::of(&plain), right.clone()).is_ok());
    assert!(matches!(
        unpack(&blob, Digest::of(b"x"), right.clone()),
        Err(UnpackError::Digest { kind: "diff id", .. })
    ));
    assert!(matches!(
        unpack(&blob, Digest::of(&plain), (Digest::of(b"x"), right.1)),
        Err(UnpackError::Digest { kind: "digest", .. })
    ));
    assert!(matches!(
        unpack(&blob, Digest::of(&plain), (right.0.clone(), right.1 + 1)),
        Err(UnpackError::Size { .. })
    ));
    assert!(unpack(&blob[..blob.len() - 4], Digest::of(&plain), right).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any sequence of members over a few names and targets: whatever happens, nothing appears or changes outside.
    #[test]
    fn no_sequence_of_members_escapes(members in proptest::collection::vec((0usize..7, 0usize..13, 0usize..13), 1..12)) {
        const NAMES: [&str; 13] = ["/", "/a/b", "/../outside/b", "a", "b", "a/b", "a/b/c", "b/a", "a/../b", "../outside", "a/.wh.b", "b/.wh..wh..opq", "a/b/../../../outside"];
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("b"), "precious").unwrap();
        let root = temp.path().join("layer");
        fs::create_dir(&root).unwrap();
        let kinds = [EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Symlink, EntryType::Char];
        let absolute = outside.to_str().unwrap();
        let mut tar = Tar::default();
        for (kind, name, target) in members {
            let target = [NAMES[target], absolute, ".."][target % 3];
            let content: &[u8] = if kind == 0 { b"evil" } else { b"" };
            tar = tar.member(kinds[kind], NAMES[name], target, content);
        }
        let bytes = tar.finish();
        let _ = unpack_layer(bytes.as_slice(), &root, &Expected { diff_id: Digest::of(&bytes), blob: None }, &UnpackLimits::default());
        prop_assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
        prop_assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        prop_assert_eq!(fs::read_to_string(outside.join("b")).unwrap(), "precious");
        prop_assert_eq!(outside.metadata().unwrap().uid(), 0);
        prop_assert_eq!(outside.join("b").metadata().unwrap().nlink(), 1);
    }
}
