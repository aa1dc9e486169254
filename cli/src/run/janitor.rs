//! What cleans up after a `tepui run` that is killed.
//!
//! A container outlives its agent, so that agents can be restarted. The agent inside `tepui run` will not be: if
//! the process is killed, nobody would ever end its containers. So a child waits for the process to end, and
//! unless that has cleaned up by itself, kills what is left of its containers and removes its directories.

use std::collections::BTreeSet;
use std::io::{PipeWriter, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::unistd::{ForkResult, Pid, fork, setsid};
use tepui_isolators::cgroups::{Cgroups, Controller, Hierarchies};

use super::embedded::Home;

/// How long what is left may take to die.
const PATIENCE: Duration = Duration::from_secs(30);
/// A launch that was under way may still make a container for this long.
const LATECOMERS: Duration = Duration::from_secs(1);

/// The child, as its parent holds it.
pub struct Janitor {
    pipe: PipeWriter,
    pid: Pid,
}

// === impl Janitor ===

impl Janitor {
    /// Forks the child. To be called while this process has one thread.
    ///
    /// # Errors
    /// When there can be no pipe or process.
    pub fn fork(home: &Home) -> anyhow::Result<Self> {
        let (mut end_of_parent, pipe) = std::io::pipe().context("no pipe to the janitor")?;
        // SAFETY: the process has one thread, so the child may do anything.
        match unsafe { fork() }.context("cannot fork the janitor")? {
            ForkResult::Parent { child } => Ok(Self { pipe, pid: child }),
            ForkResult::Child => {
                drop(pipe);
                let code = match wait(&mut end_of_parent) {
                    true => 0,
                    false => i32::from(clean_up(home).is_err()),
                };
                // SAFETY: ends the child at once; exit handlers and destructors are the parent's.
                unsafe { nix::libc::_exit(code) }
            }
        }
    }

    /// Tells the child that there is nothing to do, and waits for its end.
    pub fn dismiss(mut self) {
        let _ = self.pipe.write_all(b".");
        drop(self.pipe);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

/// Waits for the parent's word or end; whether it was a word.
fn wait(parent: &mut std::io::PipeReader) -> bool {
    // Not to be reached by Ctrl-C, nor to keep what reads our output waiting.
    let _ = setsid();
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        for standard in 0..3 {
            // SAFETY: takes integers; the standard descriptors of this process belong to no object that is used.
            unsafe { nix::libc::dup2(null.as_raw_fd(), standard) };
        }
    }
    matches!(parent.read(&mut [0]), Ok(1))
}

fn clean_up(home: &Home) -> anyhow::Result<()> {
    let cgroups = Cgroups::new(Hierarchies::detect()?, Path::new(&home.cgroups), &[Controller::Cpu])?;
    let began = Instant::now();
    loop {
        let left = cgroups.orphans(&BTreeSet::new())?;
        for id in &left {
            cgroups.kill_all(id, PATIENCE)?;
            cgroups.destroy(id, PATIENCE)?;
        }
        if left.is_empty() && began.elapsed() > LATECOMERS {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    home.remove();
    Ok(())
}
