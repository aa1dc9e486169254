//! Putting a file where it belongs in a sandbox, by a thread that acts as the sandbox' user.
//!
//! No link is followed on the way, as something fetched before may have left one; what is in the way of a file makes room for it, unless
//! it is a directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use tepui_images::{FileLimits, PieceReader, unpack_files};

use super::cache::CachedFile;
use super::error::Failure;
use super::uri::{Packing, RESERVED, Wanted};

/// What a file from the net can be used for.
const PLAIN: u32 = 0o644;
/// A program, for all.
const PROGRAM: u32 = 0o755;
const BUFFER: usize = 128 << 10;

/// Where a file's content comes from.
pub(super) enum Source {
    Net(PieceReader),
    /// A file of this machine.
    Local(File),
    /// A file of the cache, open, as the thread's user may not open it. It is held until it is copied.
    Cached(Arc<CachedFile>, File),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Copied { bytes: u64 },
    Unpacked,
}

/// A sandbox, opened by the agent: its user may not get at it from the root, as when it is beneath another's.
pub(super) struct Sandbox {
    root: OwnedFd,
    /// The way to it that only this process has.
    path: PathBuf,
}

// === impl Sandbox ===

impl Sandbox {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Another user's processes may have been there before, if it is beneath that user's.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let root = openat2(AT_FDCWD, path, how)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        Ok(Self { root, path })
    }
}

/// Opens a file of this machine to be fetched.
pub(super) fn open_local(path: &Path) -> Result<File, Failure> {
    // A pipe would be waited for.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(Failure::open(path))?;
    let kind = file.metadata().map_err(Failure::open(path))?.file_type();
    match kind.is_file() {
        true => Ok(file),
        false => Err(Failure::NoFile(path.to_owned())),
    }
}

/// A file's permissions without those that a copy may not have.
pub(super) fn copied_mode(file: &File) -> u32 {
    file.metadata().map_or(PLAIN, |metadata| metadata.permissions().mode() & PROGRAM)
}

/// Puts a file into a sandbox, and unpacks it there if it is wanted so. Blocks on the source and the disk.
pub(super) fn place(
    sandbox: &Sandbox,
    wanted: &Wanted,
    source: Source,
    stop: &dyn Fn() -> bool,
) -> Result<Placed, Failure> {
    let into = Into { sandbox, stop };
    match (source, &wanted.packing) {
        // Only what is in it goes into the sandbox.
        (Source::Cached(_held, archive), Some(packing)) => {
            into.unpack(archive, packing).map(|()| Placed::Unpacked)
        }
        (Source::Cached(cached, mut file), None) => into.copy(&mut file, wanted, cached.mode()),
        (Source::Local(mut file), _) => {
            let mode = copied_mode(&file);
            into.copy(&mut file, wanted, mode)
        }
        (Source::Net(mut pieces), _) => into.copy(&mut pieces, wanted, PLAIN),
    }
}

/// Writes a line for the task to read beside its own output. What cannot be written is not.
pub(super) fn note(sandbox: &Sandbox, line: &str) {
    let how = OFlag::O_WRONLY | OFlag::O_APPEND;
    let not = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    if let Ok(file) = openat(&sandbox.root, "stderr", how | not, Mode::empty()) {
        let _ = writeln!(File::from(file), "{line}");
    }
}

/// A sandbox that something is put into.
struct Into<'a> {
    sandbox: &'a Sandbox,
    stop: &'a dyn Fn() -> bool,
}

impl Into<'_> {
    /// Copies a file, and unpacks the copy.
    fn copy(&self, source: &mut dyn Read, wanted: &Wanted, mode: u32) -> Result<Placed, Failure> {
        let output = &wanted.output;
        let parent = self.parent_of(output).map_err(|errno| Failure::write(output)(errno.into()))?;
        let name = output.file_name().unwrap_or_default();
        let mut file = create(&parent, name).map_err(|errno| Failure::write(output)(errno.into()))?;
        let copied = self.pour(source, &mut file, output, u64::MAX);
        if copied.is_err() {
            // Half a file is of no use.
            let _ = unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir);
        }
        let bytes = copied?;
        let mode = if wanted.executable { PROGRAM } else { mode };
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(Failure::write(output))?;
        let Some(packing) = &wanted.packing else { return Ok(Placed::Copied { bytes }) };
        file.rewind().map_err(Failure::Read)?;
        self.unpack(file, packing)?;
        Ok(Placed::Unpacked)
    }

    fn unpack(&self, packed: File, packing: &Packing) -> Result<(), Failure> {
        let limits = FileLimits { reserved: &RESERVED, ..FileLimits::default() };
        match packing {
            Packing::Archive => {
                unpack_files(packed, &self.sandbox.path, &limits, self.stop)?;
                Ok(())
            }
            Packing::Gzip(name) => {
                let made = create(&self.sandbox.root, name.as_os_str());
                let mut file = made.map_err(|errno| Failure::write(name)(errno.into()))?;
                let mut plain = MultiGzDecoder::new(BufReader::new(packed));
                self.pour(&mut plain, &mut file, name, limits.max_bytes)?;
                let mode = std::fs::Permissions::from_mode(PLAIN);
                file.set_permissions(mode).map_err(Failure::write(name))
            }
        }
    }

    /// The directory that a path is in, made if absent.
    fn parent_of(&self, path: &Path) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut directory = openat(&self.sandbox.root, ".", flags, Mode::empty())?;
        for name in path.parent().into_iter().flat_map(Path::components) {
            match mkdirat(&directory, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            directory = openat(&directory, name.as_os_str(), flags, Mode::empty())?;
        }
        Ok(directory)
    }

    fn pour(&self, from: &mut dyn Read, to: &mut File, name: &Path, most: u64) -> Result<u64, Failure> {
        pour(from, to, most, self.stop, Failure::write(name))
    }
}

/// Copies all there is, up to so many bytes.
pub(super) fn pour(
    from: &mut dyn Read,
    to: &mut File,
    most: u64,
    stop: &dyn Fn() -> bool,
    failed: impl FnOnce(io::Error) -> Failure,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        if stop() {
            return Err(Failure::Stopped);
        }
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Read(error)),
        };
        bytes += read as u64;
        if bytes > most {
            return Err(Failure::TooLarge(most));
        }
        if let Err(error) = to.write_all(&buffer[..read]) {
            return Err(failed(error));
        }
    }
}

/// A new file, in place of what has that name and is no directory.
fn create(parent: &impl AsFd, name: &OsStr) -> nix::Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let make = || openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
    match make() {
        Err(Errno::EEXIST) => {
            unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
            make().map(File::from)
        }
        made => made.map(File::from),
    }
}
