use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use ::tar::EntryType;
use ::zip::ZipWriter;
use ::zip::write::SimpleFileOptions;

use super::super::tests::Tar;
use super::*;

/// A sandbox with an output file, and what is beside it.
struct World {
    temp: tempfile::TempDir,
    sandbox: PathBuf,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let sandbox = temp.path().join("sandbox");
        fs::create_dir(&sandbox).unwrap();
        fs::write(sandbox.join("stdout"), "so far").unwrap();
        Self { temp, sandbox }
    }

    fn unpack(&self, archive: &[u8], limits: &FileLimits) -> Result<UnpackedFiles, UnpackError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(archive).unwrap();
        file.rewind().unwrap();
        let limits = FileLimits { reserved: &["stdout", "stderr"], ..limits.clone() };
        unpack_files(file, &self.sandbox, &limits, &|| false)
    }

    fn good(&self, archive: &[u8]) -> u64 {
        self.unpack(archive, &FileLimits::default()).unwrap().entries
    }

    fn refused(&self, archive: &[u8]) -> UnpackError {
        let error = self.unpack(archive, &FileLimits::default()).unwrap_err();
        let beside: Vec<_> =
            fs::read_dir(self.temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside, ["sandbox"], "nothing is written beside the sandbox");
        assert_eq!(fs::read_to_string(self.sandbox.join("stdout")).unwrap(), "so far");
        error
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.sandbox.join(name)).unwrap()
    }
}

fn zip(members: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, content) in members {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        match mode & 0o170_000 {
            0o120_000 => writer.add_symlink(*name, std::str::from_utf8(content).unwrap(), options).unwrap(),
            _ if name.ends_with('/') => writer.add_directory(name.trim_end_matches('/'), options).unwrap(),
            _ => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(content).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

/// The same archive of one file `hello`, packed by the tools of that name.
fn packed(kind: &str) -> Vec<u8> {
    let plain = Tar::default().file("hello", b"hello\n").finish();
    match kind {
        "plain" => plain,
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(plain.as_slice(), 1).unwrap(),
        _ => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// `hello` in a tar, packed by `xz`.
const XZ: &[u8] = include_bytes!("hello.tar.xz");

#[test]
fn all_kinds_are_known_by_their_content() {
    for archive in ["plain", "gzip", "zstd", "bzip2"].map(packed).iter().map(Vec::as_slice).chain([XZ]) {
        let world = World::new();
        assert_eq!(world.good(archive), 1);
        assert_eq!(world.text("hello"), "hello\n");
    }
    let world = World::new();
    assert_eq!(world.good(&zip(&[("d/", 0o755, b""), ("d/hello", 0o755, b"hello\n")])), 2);
    assert_eq!(world.text("d/hello"), "hello\n");
    assert_eq!(world.good(&zip(&[])), 0);
}

#[test]
fn what_is_cut_off_or_no_archive_is_an_error() {
    let world = World::new();
    for kind in ["gzip", "zstd", "bzip2"] {
        let whole = packed(kind);
        assert!(world.unpack(&whole[..whole.len() / 2], &FileLimits::default()).is_err(), "{kind}");
    }
    assert!(world.unpack(&XZ[..XZ.len() / 2], &FileLimits::default()).is_err());
    let error = world.refused(b"<html>no such page</html>".repeat(40).as_slice());
    assert!(matches!(error, UnpackError::Malformed { .. }), "{error}");
    let whole = zip(&[("a", 0o644, b"some text")]);
    let error = world.refused(&whole[..whole.len() - 4]);
    assert!(matches!(error, UnpackError::Zip { .. } | UnpackError::Stream(_)), "{error}");
}

#[test]
fn members_belong_to_who_unpacks_them_and_have_plain_modes() {
    let world = World::new();
    // The builder's owner is 1000.
    let mut archive = Tar::default().directory("closed").file("closed/file", b"x").finish();
    set_mode(&mut archive, 0, 0o500);
    set_mode(&mut archive, 512, 0o6777);
    assert_eq!(world.good(&archive), 2);
    let (directory, file) = (world.sandbox.join("closed"), world.sandbox.join("closed/file"));
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o7777, 0o500);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(file.metadata().unwrap().uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(file.metadata().unwrap().mtime(), 1_600_000_000);

    assert_eq!(world.good(&zip(&[("setuid", 0o104_755, b""), ("plain", 0, b"")])), 2);
    let mode = |name: &str| world.sandbox.join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("setuid"), mode("plain")), (0o755, 0o644));
}

/// Writes another mode into the header at this place.
fn set_mode(archive: &mut [u8], at: usize, mode: u32) {
    let mut header = ::tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&archive[at..at + 512]);
    header.set_mode(mode);
    header.set_cksum();
    archive[at..at + 512].copy_from_slice(header.as_bytes());
}

#[test]
fn nothing_leads_outside() {
    for name in ["../x", "a/../../x", ".."] {
        let error = World::new().refused(&Tar::default().file(name, b"x").finish());
        assert!(matches!(error, UnpackError::Outside { .. }), "{name}: {error}");
        let error = World::new().refused(&zip(&[(name, 0o644, b"x")]));
        assert!(matches!(error, UnpackError::Outside { .. }), "{name}: {error}");
    }
    let through = Tar::default().symlink("out", "..").file("out/x", b"x").finish();
    let error = World::new().refused(&through);
    assert!(matches!(error, UnpackError::NotThroughDirectories { .. }), "{error}");
    let error = World::new().refused(&zip(&[("out", 0o120_777, b".."), ("out/x", 0o644, b"x")]));
    assert!(matches!(error, UnpackError::NotThroughDirectories { .. }), "{error}");
    let error = World::new().refused(&Tar::default().hard_link("a", "../secret").finish());
    assert!(matches!(error, UnpackError::Outside { .. }), "{error}");

    // An absolute name is one beneath the sandbox, as tar has it.
    let world = World::new();
    world.good(&Tar::default().file("/etc/x", b"x").finish());
    assert_eq!(world.text("etc/x"), "x");
    // A link alone harms nobody.
    world.good(&Tar::default().symlink("link", "/etc/passwd").finish());
    assert_eq!(fs::read_link(world.sandbox.join("link")).unwrap(), PathBuf::from("/etc/passwd"));
    // A file of its name takes its place, and not that of what it leads to.
    world.good(&Tar::default().symlink("link2", "stdout").file("link2", b"new").finish());
    assert_eq!((world.text("link2"), world.text("stdout")), ("new".into(), "so far".into()));
}

#[test]
fn devices_and_output_files_are_refused() {
    let device = Tar::default().member(EntryType::Char, "null", "", b"").finish();
    assert!(matches!(World::new().refused(&device), UnpackError::NoDevices { .. }));
    let device = Tar::default().member(EntryType::Block, "dev/sda", "", b"").finish();
    assert!(matches!(World::new().refused(&device), UnpackError::NoDevices { .. }));
    for name in ["stdout", "./stderr", "/stdout"] {
        let archive = Tar::default().symlink(name, "/etc/passwd").finish();
        assert!(matches!(World::new().refused(&archive), UnpackError::Reserved { .. }), "{name}");
    }
    assert!(matches!(World::new().refused(&zip(&[("stdout", 0o644, b"")])), UnpackError::Reserved { .. }));
    assert_eq!(World::new().good(&Tar::default().file("logs/stdout", b"").finish()), 1);
}

#[test]
fn bombs_are_stopped() {
    let limits = FileLimits { max_entries: 2, max_bytes: 100_000, reserved: &[] };
    let zeros = vec![0; 1 << 20];
    let world = World::new();
    let error = world.unpack(&zip(&[("a", 0o644, &zeros)]), &limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { limit: 100_000 }), "{error}");
    let half = &zeros[..60_000];
    let error = world.unpack(&zip(&[("a", 0o644, half), ("b", 0o644, half)]), &limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
    let error = world.unpack(&Tar::default().file("a", &zeros).finish(), &limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
    let error = world.unpack(&Tar::default().file("a", half).file("b", half).finish(), &limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
    let three = Tar::default().file("a", b"").file("b", b"").file("c", b"").finish();
    assert!(matches!(world.unpack(&three, &limits), Err(UnpackError::TooManyEntries { limit: 2 })));
    let three = zip(&[("a", 0o644, b""), ("b", 0o644, b""), ("c", 0o644, b"")]);
    assert!(matches!(world.unpack(&three, &limits), Err(UnpackError::TooManyEntries { limit: 2 })));
}

#[test]
fn a_list_of_members_that_would_fill_the_memory_is_not_read() {
    // Entries of the list alone, as long as they can be: 600 names of 60,000 bytes.
    const NAME: u16 = 60_000;
    const ENTRIES: u16 = 600;
    let mut entry = b"PK\x01\x02".to_vec();
    entry.resize(46, 0);
    entry[28..30].copy_from_slice(&NAME.to_le_bytes());
    entry.resize(46 + usize::from(NAME), b'x');
    let mut archive = b"PK\x03\x04".to_vec();
    archive.resize(30, 0);
    let start = u32::try_from(archive.len()).unwrap();
    for _ in 0..ENTRIES {
        archive.extend_from_slice(&entry);
    }
    let length = u32::try_from(archive.len()).unwrap() - start;
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for count in [ENTRIES, ENTRIES] {
        archive.extend_from_slice(&count.to_le_bytes());
    }
    archive.extend_from_slice(&length.to_le_bytes());
    archive.extend_from_slice(&start.to_le_bytes());
    archive.extend_from_slice(&[0, 0]);
    let error = World::new().refused(&archive);
    assert!(error.to_string().contains("longer than 32 MiB"), "{error}");
}

#[test]
fn a_forged_length_in_a_zip_is_found() {
    let content = b"some text that is long enough to be there".repeat(20);
    let archive = zip(&[("a", 0o644, &content)]);
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    for claimed in [10_u32, 5000] {
        let mut forged = archive.clone();
        for at in 0..forged.len() - 4 {
            if forged[at..at + 4] == size {
                forged[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
            }
        }
        let error = World::new().refused(&forged);
        assert!(matches!(error, UnpackError::Zip { .. } | UnpackError::Stream(_)), "{claimed}: {error}");
    }
}

#[test]
fn who_gives_up_is_heeded() {
    let world = World::new();
    for archive in [packed("gzip"), zip(&[("a", 0o644, b"x")])] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&archive).unwrap();
        file.rewind().unwrap();
        let error = unpack_files(file, &world.sandbox, &FileLimits::default(), &|| true).unwrap_err();
        assert!(matches!(error, UnpackError::GivenUp), "{error}");
    }
}
