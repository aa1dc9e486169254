//! The user's terminal, in hand while it belongs to a container.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tepui_api::v1::TtyInfo;
use tepui_api::v1::tty_info::WindowSize;

/// Each key goes to the container as it is, until this is dropped.
pub(super) struct Raw(Termios);

impl Raw {
    /// Takes the terminal; `None` where standard input is none.
    pub(super) fn take() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0);
    }
}

/// The size of the user's terminal.
pub(super) fn size() -> Option<TtyInfo> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one structure, which lives through the call.
    let known = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    let window_size = WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() };
    (known == 0 && size.ws_row > 0).then_some(TtyInfo { window_size: Some(window_size) })
}
