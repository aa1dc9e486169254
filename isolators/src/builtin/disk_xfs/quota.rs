//! Project quotas, as XFS and ext4 have them alike: the project of a file (`ioctl_xfs_fsgetxattr(2)`), and what a project uses and may use
//! (`quotactl(2)`).
//!
//! A file of a directory with `FS_XFLAG_PROJINHERIT` is born into the directory's project. Limits are set and read by the calls that all
//! file systems with quotas share, by a descriptor rather than by a block device (`quotactl_fd`, Linux 5.14).

// The system calls have no safe wrapper in nix or rustix.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};

/// A project's number. 0 is nobody's.
pub type ProjectId = u32;

/// A limit's unit in `struct if_dqblk` (`QIF_DQBLKSIZE`).
const LIMIT_UNIT: u64 = 1 << 10;

// linux/quota.h, linux/dqblk_xfs.h
const PROJECT_QUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_GETNEXTQUOTA: u32 = 0x80_0009;
const Q_XQUOTAON: u32 = 0x5801;
const Q_XGETQSTATV: u32 = 0x5808;
const QIF_BLIMITS: u32 = 1;
const FS_QSTATV_VERSION1: i8 = 1;
const FS_QUOTA_PDQ_ACCT: u16 = 1 << 4;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
// linux/fs.h
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// `struct if_nextdqblk`, of which `struct if_dqblk` is all but the last field.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Dqblk {
    bhardlimit: u64,
    bsoftlimit: u64,
    curspace: u64,
    ihardlimit: u64,
    isoftlimit: u64,
    curinodes: u64,
    btime: u64,
    itime: u64,
    valid: u32,
    id: u32,
}

/// `struct fs_quota_statv`; what follows the flags is not looked at.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Statv {
    version: i8,
    pad: u8,
    flags: u16,
    incore: u32,
    files_and_times: [u64; 12],
    more: [u64; 7],
}

/// `struct fsxattr`
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Fsxattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

nix::ioctl_read!(fs_ioc_fsgetxattr, b'X', 31, Fsxattr);
nix::ioctl_write_ptr!(fs_ioc_fssetxattr, b'X', 32, Fsxattr);

/// A file system with quotas.
#[derive(Debug)]
pub struct FileSystem(OwnedFd);

/// Whether a file system counts for projects, and limits them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// What projects use is known.
    pub counts: bool,
    /// Limits are kept.
    pub limits: bool,
}

/// What a project uses and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Bytes in use.
    pub used: u64,
    /// Files, directories and links.
    pub files: u64,
    /// Bytes from which on writes fail; 0: no limit.
    pub hard_limit: u64,
}

impl FileSystem {
    /// That of a directory.
    pub fn of(directory: &Path) -> io::Result<Self> {
        Ok(FileSystem(open_directory(directory)?))
    }

    /// Whether limits do not hold for those with CAP_SYS_RESOURCE, as in all file systems that have their quotas from `fs/quota/dquot.c`.
    pub fn spares_root(&self) -> io::Result<bool> {
        Ok(fstatfs(&self.0)?.filesystem_type() == EXT4_SUPER_MAGIC)
    }

    /// What is turned on.
    pub fn state(&self) -> io::Result<State> {
        let mut state = Statv { version: FS_QSTATV_VERSION1, ..Statv::default() };
        self.quotactl(Q_XGETQSTATV, 0, &mut state)?;
        let has = |flag| state.flags & flag != 0;
        Ok(State { counts: has(FS_QUOTA_PDQ_ACCT), limits: has(FS_QUOTA_PDQ_ENFD) })
    }

    /// Has limits be kept from now on, where they are counted already.
    pub fn enforce(&self) -> io::Result<()> {
        self.quotactl(Q_XQUOTAON, 0, &mut u32::from(FS_QUOTA_PDQ_ENFD))
    }

    /// What a project uses and may use. One that never had a file uses nothing.
    pub fn quota(&self, project: ProjectId) -> io::Result<Quota> {
        let mut found = Dqblk::default();
        match self.quotactl(Q_GETQUOTA, project, &mut found) {
            Ok(()) => Ok(found.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Quota::default()),
            Err(error) => Err(error),
        }
    }

    /// The first project from this one on of which the file system knows anything.
    pub fn next(&self, project: ProjectId) -> io::Result<Option<(ProjectId, Quota)>> {
        let mut found = Dqblk::default();
        match self.quotactl(Q_GETNEXTQUOTA, project, &mut found) {
            Ok(()) => Ok(Some((found.id, found.into()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Limits a project, in bytes. Zero lifts a limit.
    pub fn limit(&self, project: ProjectId, soft: u64, hard: u64) -> io::Result<()> {
        let mut limits = Dqblk {
            bsoftlimit: soft.div_ceil(LIMIT_UNIT),
            bhardlimit: hard.div_ceil(LIMIT_UNIT),
            valid: QIF_BLIMITS,
            ..Dqblk::default()
        };
        self.quotactl(Q_SETQUOTA, project, &mut limits)
    }

    /// `T` must be what the command reads or writes.
    fn quotactl<T>(&self, command: u32, id: u32, argument: &mut T) -> io::Result<()> {
        let command = (command << 8) | PROJECT_QUOTA;
        let argument: *mut T = argument;
        // SAFETY: the descriptor is open as long as `self` is. The kernel reads from and writes to `argument`, which is borrowed for the
        // call, no more than the command's structure: each caller in this file passes that one, with the kernel's layout.
        let result =
            unsafe { libc::syscall(libc::SYS_quotactl_fd, self.0.as_raw_fd(), command, id, argument) };
        Errno::result(result)?;
        Ok(())
    }
}

impl From<Dqblk> for Quota {
    fn from(found: Dqblk) -> Self {
        Quota {
            used: found.curspace,
            files: found.curinodes,
            hard_limit: found.bhardlimit.saturating_mul(LIMIT_UNIT),
        }
    }
}

/// The project of an open file or directory.
pub fn project(file: impl AsFd) -> io::Result<ProjectId> {
    Ok(attributes(&file)?.projid)
}

/// The project of a directory.
pub fn project_at(directory: &Path) -> io::Result<ProjectId> {
    project(open_directory(directory)?)
}

/// Moves an open file to a project; of a directory also what will be made in it.
pub fn set_project(file: impl AsFd, project: ProjectId, is_directory: bool) -> io::Result<()> {
    let mut attributes = attributes(&file)?;
    attributes.projid = project;
    if is_directory {
        attributes.xflags |= FS_XFLAG_PROJINHERIT;
    }
    // SAFETY: the descriptor is open, and the kernel reads one `struct fsxattr`.
    unsafe { fs_ioc_fssetxattr(file.as_fd().as_raw_fd(), &raw const attributes) }?;
    Ok(())
}

fn attributes(file: &impl AsFd) -> io::Result<Fsxattr> {
    let mut found = Fsxattr::default();
    // SAFETY: the descriptor is open, and the kernel writes one `struct fsxattr`.
    unsafe { fs_ioc_fsgetxattr(file.as_fd().as_raw_fd(), &raw mut found) }?;
    Ok(found)
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    Ok(open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<Dqblk>(), 72);
        assert_eq!(size_of::<Statv>(), 160);
        assert_eq!(size_of::<Fsxattr>(), 28);
    }

    #[test]
    fn a_file_system_without_quotas_says_so() {
        // The kernel's own file systems have none.
        assert!(FileSystem::of(Path::new("/proc")).unwrap().state().is_err());
        assert!(project_at(Path::new("/proc")).is_err());
        assert!(FileSystem::of(Path::new("/nowhere")).is_err());
    }
}
