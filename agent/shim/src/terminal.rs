//! Pseudo-terminals (`pty(7)`): the master for whoever types, the slave for the program.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, fchown};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::logger::LogFile;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// The usual one, for those who do not say.
impl Default for WindowSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// A terminal's two ends.
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Where terminals are made. Which of them works depends on who has mounted `devpts`.
const PLACES: [&str; 2] = ["/dev/ptmx", "/dev/pts/ptmx"];

/// Makes a terminal in the present mount namespace that belongs to a user.
pub(crate) fn make(size: WindowSize, (uid, gid): (u32, u32)) -> io::Result<Terminal> {
    let made = PLACES.iter().map(|place| open(place)).reduce(Result::or);
    let terminal = made.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))?;
    set_size(&terminal.master, size)?;
    fchown(&terminal.slave, Some(uid), Some(gid))?;
    Ok(terminal)
}

fn open(place: &str) -> io::Result<Terminal> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let master: OwnedFd = File::options().read(true).write(true).custom_flags(flags).open(place)?.into();
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one integer, which lives through the call.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes an integer and gives a new descriptor.
    let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(Terminal { master, slave: unsafe { OwnedFd::from_raw_fd(slave) } })
}

/// Tells the programs of a terminal that it has another size.
///
/// # Errors
/// When it is no terminal.
pub fn set_size(terminal: &impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one structure, which lives through the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// The shim's end of the terminal of a container's program: what is written there goes to a file.
pub(crate) struct Screen {
    master: OwnedFd,
    file: LogFile,
    /// Nobody has the other end open any more.
    dark: bool,
}

impl Screen {
    pub(crate) fn new(master: OwnedFd, file: LogFile) -> Self {
        Self { master, file, dark: false }
    }

    /// Becomes readable when there is something to [`Screen::read`].
    pub(crate) fn ready(&self) -> Option<BorrowedFd<'_>> {
        (!self.dark).then(|| self.master.as_fd())
    }

    pub(crate) fn master(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }

    /// Writes all that there is to the file. A program that writes without end has to wait for others' turns.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..64 {
            match nix::unistd::read(&self.master, &mut buffer) {
                // A file that cannot be written to, as on a full disk, is no reason to hold the program up.
                Ok(length) if length > 0 => drop(self.file.write(&buffer[..length])),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // EIO: the last one has closed it.
                _ => {
                    self.dark = true;
                    return;
                }
            }
        }
    }
}

/// Makes standard input the controlling terminal of this process, which must lead a session without one.
pub(crate) fn take_control() -> io::Result<()> {
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
    Ok(())
}
