//! Output files that are rotated: `stdout` becomes `stdout.1`, that one `stdout.2`, as `logrotate` does it.
//!
//! Whoever writes one ([`LogFile`]) decides when: the shim for its container's output, of which it then reads the other end ([`Logger`]); the agent for
//! what a Docker engine keeps. A file is never larger than its limit, and is cut between two lines wherever a line fits into a file.
//! Nothing is lost: what is read is written before more is read, so a program that writes faster than the disk waits for its own pipe.
//!
//! The directory may belong to the user whose output it is, while who writes is root: it is opened once, and no link in it is followed.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat, openat2, renameat,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use crate::plan::LaunchPlan;

/// What is read at once; a pipe holds as much.
const CHUNK: usize = 64 << 10;
/// How long the last of a container's output is waited for, once none of its processes is left that could write it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How an output file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// The most that a file may have, in bytes.
    pub max_size: u64,
    /// How many former files are kept. With none, a full file is removed.
    pub keep: u32,
}

/// How both output files of a container are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Of standard output.
    pub stdout: LogLimits,
    /// Of standard error.
    pub stderr: LogLimits,
}

/// An output file that is appended to, and rotated if it has limits.
#[derive(Debug)]
pub struct LogFile {
    directory: OwnedFd,
    name: CString,
    owner: Option<(u32, u32)>,
    limits: Option<LogLimits>,
    file: File,
    /// Bytes in the file.
    size: u64,
    /// Whether the file's last line is whole.
    at_line_start: bool,
}

// === impl LogFile ===

impl LogFile {
    /// Opens a file to append to it; makes it, for this user and group, if it is not there.
    ///
    /// # Errors
    /// When it cannot be opened, as when something else has its name.
    pub fn open(path: &Path, owner: Option<(u32, u32)>, limits: Option<LogLimits>) -> io::Result<Self> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let name = CString::new(name.as_encoded_bytes())?;
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let directory = openat2(AT_FDCWD, parent, how)?;
        let file = open_file(&directory, &name, owner)?;
        let size = file.metadata()?.len();
        Ok(Self { directory, name, owner, limits, file, size, at_line_start: true })
    }

    /// Bytes in the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether so many bytes more have room in the file.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.limits.is_none_or(|limits| self.size.saturating_add(bytes) <= limits.max_size)
    }

    /// Cuts the file off.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Appends, without rotation.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.at_line_start = *last == b'\n';
        Ok(())
    }

    /// Appends, and rotates wherever the file is full.
    ///
    /// # Errors
    /// When the disk refuses. Part of it may be written.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let fitting = self.fitting(bytes);
            if fitting == 0 {
                self.rotate()?;
                continue;
            }
            let (now, later) = bytes.split_at(fitting);
            self.append(now)?;
            bytes = later;
        }
        Ok(())
    }

    /// How much of these bytes goes into the file as it is; 0 if it is to be rotated first.
    fn fitting(&self, bytes: &[u8]) -> usize {
        let Some(limits) = self.limits else { return bytes.len() };
        let room = usize::try_from(limits.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return bytes.len();
        }
        match bytes[..room].iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            // The next line fits into a file of its own, perhaps.
            None if self.size > 0 && self.at_line_start => 0,
            // A limit of nothing at all would never end.
            None if self.size == 0 => room.max(1),
            None => room,
        }
    }

    /// Begins a new file. The former ones move on, and the oldest goes. When they cannot be moved, the file goes on, as `logrotate` has it.
    ///
    /// # Errors
    /// When no file can be opened in its place.
    pub fn rotate(&mut self) -> io::Result<()> {
        let keep = self.limits.map_or(0, |limits| limits.keep);
        match self.shift(keep) {
            Ok(()) => self.file = open_file(&self.directory, &self.name, self.owner)?,
            // Somebody has removed it, or made something else of its name.
            Err(Errno::ENOENT) => self.file = open_file(&self.directory, &self.name, self.owner)?,
            Err(_) => {}
        }
        // Counted anew even then: a rotation for each line would be of no use.
        self.size = 0;
        self.at_line_start = true;
        Ok(())
    }

    fn shift(&self, keep: u32) -> nix::Result<()> {
        let (directory, own) = (&self.directory, self.name.as_c_str());
        if keep == 0 {
            return unlinkat(directory, own, UnlinkatFlags::NoRemoveDir);
        }
        // Only as far as there are some, however many may be kept.
        let is_there = |number: &u32| {
            fstatat(directory, self.former(*number).as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
        };
        let there = (1..keep).take_while(is_there).last().unwrap_or(0);
        for number in (1..=there).rev() {
            renameat(directory, self.former(number).as_str(), directory, self.former(number + 1).as_str())?;
        }
        renameat(directory, own, directory, self.former(1).as_str())
    }

    fn former(&self, number: u32) -> String {
        format!("{}.{number}", self.name.to_string_lossy())
    }
}

fn open_file(directory: &OwnedFd, name: &CString, owner: Option<(u32, u32)>) -> io::Result<File> {
    // A pipe in its place would be waited for.
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    let open = |more| openat(directory, name.as_c_str(), flags | more, Mode::from_bits_truncate(0o644));
    match open(OFlag::O_CREAT | OFlag::O_EXCL) {
        Ok(file) => {
            let file = File::from(file);
            if let Some((uid, gid)) = owner {
                fchown(&file, Some(uid), Some(gid))?;
            }
            Ok(file)
        }
        Err(Errno::EEXIST) => {
            let file = File::from(open(OFlag::empty())?);
            match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::Error::other("something else has the name of the output file")),
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Writes a container's output into files that are rotated.
pub(crate) struct Logger {
    streams: [Stream; 2],
    chunk: Vec<u8>,
}

/// One output of a container.
struct Stream {
    pipe: PipeReader,
    log: LogFile,
    /// Whether there is somebody who could write into the pipe, as far as is known.
    open: bool,
}

/// What a container's processes write into.
pub(crate) struct Outputs {
    pub(crate) stdout: PipeWriter,
    pub(crate) stderr: PipeWriter,
}

// === impl Logger ===

impl Logger {
    /// Opens the files of a plan, and pipes that lead to them.
    pub(crate) fn begin(plan: &LaunchPlan, rotation: &Rotation) -> io::Result<(Self, Outputs)> {
        let stream = |path: &Path, limits| {
            let (pipe, writer) = io::pipe()?;
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            // A program may open /dev/stdout anew.
            let (uid, gid) = plan.stdio_owner;
            fchown(&writer, Some(uid), Some(gid))?;
            let log = LogFile::open(path, Some(plan.stdio_owner), Some(limits))?;
            Ok::<_, io::Error>((Stream { pipe, log, open: true }, writer))
        };
        let (out, stdout) = stream(&plan.stdout, rotation.stdout)?;
        let (error, stderr) = stream(&plan.stderr, rotation.stderr)?;
        Ok((Self { streams: [out, error], chunk: vec![0; CHUNK] }, Outputs { stdout, stderr }))
    }

    /// The ends that can be read, to wait on.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().filter(|stream| stream.open).map(|stream| stream.pipe.as_fd())
    }

    /// Another way into both outputs, for a program that joins the container.
    pub(crate) fn outputs(&mut self) -> io::Result<[OwnedFd; 2]> {
        // A pipe's reading end, opened anew for writing, is its other end: none needs to be kept open, which would keep the output from ending.
        let way_in = |stream: &mut Stream| {
            let path = format!("/proc/self/fd/{}", stream.pipe.as_raw_fd());
            stream.open = true;
            File::options().write(true).open(path).map(OwnedFd::from)
        };
        let [out, error] = &mut self.streams;
        Ok([way_in(out)?, way_in(error)?])
    }

    /// Writes what has come, a chunk of each output at most.
    pub(crate) fn go_on(&mut self) {
        for stream in self.streams.iter_mut().filter(|stream| stream.open) {
            stream.go_on(&mut self.chunk);
        }
    }

    /// Writes all that is left, when none is left who could write more. One who got hold of an output from outside is not waited for.
    pub(crate) fn finish(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut fds: Vec<PollFd> = self.waiting().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let left = until.saturating_duration_since(Instant::now());
            if fds.is_empty() || left.is_zero() {
                return;
            }
            let time = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, time) {
                Ok(0) => return,
                Ok(_) => self.go_on(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl Stream {
    fn go_on(&mut self, chunk: &mut [u8]) {
        match self.pipe.read(chunk) {
            Ok(0) => self.open = false,
            Ok(read) => {
                if let Err(error) = self.log.write(&chunk[..read]) {
                    // Lost, as the program's own write to a full disk would be. It must not wait for ever.
                    eprintln!("{read} bytes of {} are lost: {error}", self.log.name.to_string_lossy());
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.open = false,
        }
    }
}

#[cfg(test)]
#[path = "logger_tests.rs"]
mod tests;
