//! Which directories can be read over HTTP, under which names, and reading them without ever leaving them.
//!
//! A sandbox has the names it has in Mesos: its path on the host, the path of its link `latest`, and
//! `/frameworks/<framework>/executors/<executor>/runs/<container>` or `…/latest`, which do not tell
//! where the agent works. What a name leads to is opened beneath the sandbox's own directory by a call that follows no
//! link, so that a task that swaps a directory for a link at the wrong moment gains nothing.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use tepui_api::v1::{FileInfo, TimeInfo};

/// What one read gives at most: 16 pages, as in Mesos.
pub const MAX_READ: usize = 16 * 4096;

/// The names, and the directories they lead to.
#[derive(Debug, Default)]
pub struct Files {
    attached: RwLock<BTreeMap<PathBuf, PathBuf>>,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is none of that name.
    #[error("there is no file '{0}'")]
    NotFound(String),
    /// It leads out of the sandbox.
    #[error("'{0}' is inaccessible: it leads out of its sandbox")]
    Outside(String),
    /// It is a directory, where a file was wanted.
    #[error("'{0}' is a directory: it can be browsed, not read")]
    Directory(String),
    /// It is a pipe, a socket or a device.
    #[error("'{0}' is neither a file nor a directory")]
    Special(String),
    /// The system refuses.
    #[error("cannot read '{path}': {source}")]
    Io {
        /// Its name.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How large the whole file is, in bytes.
    pub size: u64,
    /// The piece.
    pub data: Vec<u8>,
}

// === impl Files ===

impl Files {
    /// Gives a directory a name. Its path must have no link in it.
    pub fn attach(&self, directory: &Path, name: &Path) {
        let mut attached = self.attached.write().unwrap_or_else(PoisonError::into_inner);
        attached.insert(name.to_owned(), directory.to_owned());
    }

    /// Takes away all names that lead to a directory.
    pub fn detach(&self, directory: &Path) {
        let mut attached = self.attached.write().unwrap_or_else(PoisonError::into_inner);
        attached.retain(|_, to| to != directory);
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> BTreeMap<PathBuf, PathBuf> {
        self.attached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is in a directory, sorted by name. Of a link that stays in the sandbox, what it leads to is told.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn browse(&self, name: &str) -> Result<Vec<FileInfo>, FilesError> {
        let (opened, metadata) = self.open(name)?;
        if !metadata.is_dir() {
            // Mesos lists a file as an empty directory.
            return Ok(Vec::new());
        }
        let failed = |source| FilesError::Io { path: name.to_owned(), source };
        // By the descriptor: the path may lead elsewhere by now.
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&by_descriptor).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort();
        let shown = Path::new(name.trim_end_matches('/'));
        let infos = names.iter().filter_map(|entry| {
            let shown = shown.join(entry);
            let itself = by_descriptor.join(entry).symlink_metadata().ok()?;
            let behind = if itself.is_symlink() { self.open(&shown.to_string_lossy()).ok() } else { None };
            Some(file_info(&shown, &behind.map_or(itself, |(_, metadata)| metadata)))
        });
        Ok(infos.collect())
    }

    /// Reads from a file: at most `length` bytes and never more than [`MAX_READ`], from `offset` on. Behind its end, or
    /// with a length of 0, only its size.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn read(&self, name: &str, offset: u64, length: Option<u64>) -> Result<Piece, FilesError> {
        let (mut file, size) = self.open_file(name)?;
        let wanted = length.unwrap_or(u64::MAX).min(MAX_READ as u64).min(size.saturating_sub(offset));
        let mut data = Vec::new();
        if wanted > 0 {
            let failed = |source| FilesError::Io { path: name.to_owned(), source };
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            file.take(wanted).read_to_end(&mut data).map_err(failed)?;
        }
        Ok(Piece { size, data })
    }

    /// Opens a file to read all of it; gives its size too.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn open_file(&self, name: &str) -> Result<(File, u64), FilesError> {
        let (file, metadata) = self.open(name)?;
        if metadata.is_dir() {
            return Err(FilesError::Directory(name.to_owned()));
        }
        if !metadata.is_file() {
            return Err(FilesError::Special(name.to_owned()));
        }
        Ok((file, metadata.len()))
    }

    fn open(&self, name: &str) -> Result<(File, Metadata), FilesError> {
        let (root, rest) = self.resolve(name).ok_or_else(|| FilesError::NotFound(name.to_owned()))?;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FilesError::NotFound(name.to_owned()),
            _ => FilesError::Io { path: name.to_owned(), source },
        };
        let path = root.join(&rest).canonicalize().map_err(failed)?;
        let Ok(inside) = path.strip_prefix(&root) else {
            return Err(FilesError::Outside(name.to_owned()));
        };
        let file = open_beneath(&root, inside).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok((file, metadata))
    }

    /// The directory that the longest beginning of the name leads to, and what is left of it.
    fn resolve(&self, name: &str) -> Option<(PathBuf, PathBuf)> {
        // A name is compared as it is written: ".." in it leads nowhere.
        if Path::new(name).components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner);
        let whole = Path::new(name);
        whole.ancestors().find_map(|prefix| {
            let root = attached.get(prefix)?;
            let rest = whole.strip_prefix(prefix).ok()?;
            Some((root.clone(), rest.to_owned()))
        })
    }
}

/// Opens without following any link, and without waiting for the other end of a pipe.
fn open_beneath(root: &Path, inside: &Path) -> io::Result<File> {
    let root: OwnedFd = File::open(root)?.into();
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(root.as_fd(), inside, how)?.into())
}

fn file_info(path: &Path, metadata: &Metadata) -> FileInfo {
    // Finer than Mesos tells it, by which who follows a file knows those apart that were put aside.
    let mtime = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    FileInfo {
        path: path.to_string_lossy().into_owned(),
        nlink: i32::try_from(metadata.nlink()).ok(),
        size: Some(metadata.size()),
        mtime: Some(TimeInfo { nanoseconds: mtime }),
        mode: Some(metadata.mode()),
        uid: Some(name_of_user(metadata.uid())),
        gid: Some(name_of_group(metadata.gid())),
    }
}

fn name_of_user(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into());
    user.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn name_of_group(gid: u32) -> String {
    let group = nix::unistd::Group::from_gid(gid.into());
    group.ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn sandbox() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("stdout"), "hello\n").unwrap();
        std::fs::write(root.join("sub/deep"), "deep").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(dir.path().join("runner")).unwrap();
        std::fs::write(dir.path().join("runner/secret"), "secret").unwrap();
        let files = Files::default();
        files.attach(&root, Path::new("/v/latest"));
        files.attach(&root, &root);
        (dir, files)
    }

    fn text(files: &Files, name: &str) -> Result<String, FilesError> {
        files.read(name, 0, None).map(|piece| String::from_utf8(piece.data).unwrap())
    }

    #[test]
    fn a_file_has_all_its_names() {
        let (dir, files) = sandbox();
        assert_eq!(text(&files, "/v/latest/stdout").unwrap(), "hello\n");
        assert_eq!(text(&files, "/v/latest/sub/deep").unwrap(), "deep");
        let real = dir.path().join("run/stdout");
        assert_eq!(text(&files, real.to_str().unwrap()).unwrap(), "hello\n");
        files.detach(&dir.path().join("run"));
        assert!(matches!(text(&files, "/v/latest/stdout"), Err(FilesError::NotFound(_))));
    }

    #[test]
    fn nothing_outside_is_read() {
        let (dir, files) = sandbox();
        let root = dir.path().join("run");
        symlink("../secret", root.join("relative")).unwrap();
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        // Its path begins with the sandbox's, but it is another directory.
        symlink("../runner", root.join("neighbour")).unwrap();
        for name in ["relative", "absolute", "up/secret", "neighbour/secret"] {
            let error = text(&files, &format!("/v/latest/{name}")).unwrap_err();
            assert!(matches!(error, FilesError::Outside(_)), "{name}: {error}");
        }
        for name in
            ["/v/latest/../secret", "/v/latest/sub/../../secret", "/etc/passwd", "", "/", "v/latest/stdout"]
        {
            let error = text(&files, name).unwrap_err();
            assert!(matches!(error, FilesError::NotFound(_)), "{name}: {error}");
        }
        symlink("stdout", root.join("inside")).unwrap();
        assert_eq!(text(&files, "/v/latest/inside").unwrap(), "hello\n");
    }

    #[test]
    fn offsets_lengths_and_the_limit() {
        let (dir, files) = sandbox();
        let piece = |offset, length| files.read("/v/latest/stdout", offset, length).unwrap();
        assert_eq!(piece(0, Some(0)), Piece { size: 6, data: vec![] });
        assert_eq!(piece(1, Some(2)), Piece { size: 6, data: b"el".to_vec() });
        assert_eq!(piece(4, None), Piece { size: 6, data: b"o\n".to_vec() });
        assert_eq!(piece(100, None), Piece { size: 6, data: vec![] });
        std::fs::write(dir.path().join("run/large"), vec![b'x'; MAX_READ + 5]).unwrap();
        assert_eq!(files.read("/v/latest/large", 0, None).unwrap().data.len(), MAX_READ);
        assert_eq!(files.read("/v/latest/large", MAX_READ as u64, Some(9)).unwrap().data.len(), 5);
    }

    #[test]
    fn directories_are_browsed_and_pipes_do_not_block() {
        let (dir, files) = sandbox();
        nix::unistd::mkfifo(&dir.path().join("run/pipe"), Mode::S_IRWXU).unwrap();
        let names: Vec<_> = files.browse("/v/latest/").unwrap().into_iter().map(|f| f.path).collect();
        assert_eq!(names, ["/v/latest/pipe", "/v/latest/stdout", "/v/latest/sub"]);
        let infos = files.browse("/v/latest").unwrap();
        assert_eq!((infos[1].size, infos[1].uid.as_deref()), (Some(6), Some("root")));
        assert_eq!(infos[1].mode.unwrap() & 0o170_000, 0o100_000);
        symlink("/etc", dir.path().join("run/out")).unwrap();
        symlink("sub", dir.path().join("run/in")).unwrap();
        let types: BTreeMap<_, _> = files
            .browse("/v/latest")
            .unwrap()
            .into_iter()
            .map(|f| (f.path, f.mode.unwrap() & 0o170_000))
            .collect();
        assert_eq!((types["/v/latest/out"], types["/v/latest/in"]), (0o120_000, 0o040_000));
        assert!(matches!(files.browse("/v/none"), Err(FilesError::NotFound(_))));
        assert!(matches!(text(&files, "/v/latest/sub"), Err(FilesError::Directory(_))));
        assert!(matches!(text(&files, "/v/latest/pipe"), Err(FilesError::Special(_))));
    }
}
