//! Loading a program and attaching it to cgroups: the bpf(2) system call, which has no wrapper in the libraries used here.
//!
//! Programs of several owners can be attached to one cgroup (`BPF_F_ALLOW_MULTI`; systemd does so too), and all must say yes. Ours
//! is known by its name.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::program::Instruction;

/// Known to `bpftool prog`; at most 15 letters, digits and `_`.
const NAME: &[u8; 16] = b"tepui_devices\0\0\0";

// `enum bpf_cmd` and others of `linux/bpf.h`.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// How many programs of one cgroup are looked at. The kernel allows 64.
const MOST: usize = 64;

/// A program that the kernel has checked.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// A program of ours in force in a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The kernel's number for it.
    pub id: u32,
    /// A hash of its instructions: the same for the same rules.
    pub tag: [u8; 8],
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
struct GetInfo {
    of: u32,
    size: u32,
    info: u64,
}

/// The begin of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    user: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

/// # Safety
/// Every address in `attributes` must be valid for what `command` does with it, for the whole call.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes `size` bytes of `attributes`, which it is given whole; the rest is the caller's promise.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(answer).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &impl AsRawFd) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

fn open(dir: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY).open(dir)
}

impl Program {
    /// Has the kernel check a program.
    pub fn load(instructions: &[Instruction]) -> io::Result<Self> {
        let license = c"Apache-2.0";
        let mut attributes = Load {
            kind: TYPE_CGROUP_DEVICE,
            count: u32::try_from(instructions.len())
                .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
            instructions: address(instructions.as_ptr()),
            license: address(license.as_ptr()),
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: *NAME,
        };
        // SAFETY: `instructions` is an array of `count` structures of the kernel's layout, and `license` ends with NUL; both outlive the call.
        owned(unsafe { bpf(PROG_LOAD, &mut attributes) }?).map(Program)
    }

    /// Puts it into force in a cgroup, in place of one of ours that is there.
    pub fn attach(&self, dir: &Path) -> io::Result<()> {
        let cgroup = open(dir)?;
        let old = attached(dir)?.first().map(|old| by_id(old.id)).transpose()?;
        let mut attributes = Attach {
            target: number(&cgroup),
            program: number(&self.0),
            kind: ATTACH_CGROUP_DEVICE,
            flags: if old.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
            replace: old.as_ref().map_or(0, number),
        };
        // SAFETY: there is no address in the attributes, and the descriptors are open.
        unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
    }
}

/// Our programs in force in a cgroup itself.
pub fn attached(dir: &Path) -> io::Result<Vec<Attached>> {
    let cgroup = open(dir)?;
    let mut ids = [0u32; MOST];
    let mut attributes = Query {
        target: number(&cgroup),
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: address(ids.as_mut_ptr()),
        count: MOST as u32,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers to `ids`, which outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.count).unwrap_or(MOST).min(MOST);
    let mut found = Vec::new();
    for &id in ids.iter().take(count) {
        let info = info(&by_id(id)?)?;
        if &info.name == NAME {
            found.push(Attached { id, tag: info.tag });
        }
    }
    Ok(found)
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = ById { id, next: 0, flags: 0 };
    // SAFETY: there is no address in the attributes.
    owned(unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) }?)
}

fn info(program: &OwnedFd) -> io::Result<Info> {
    let mut info = Info::default();
    let mut attributes =
        GetInfo { of: number(program), size: size_of::<Info>() as u32, info: address(&raw mut info) };
    // SAFETY: the kernel writes at most `size` bytes to `info`, which outlives the call and is plain numbers. Its own addresses and
    // lengths are 0, so that it copies no instructions.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}
