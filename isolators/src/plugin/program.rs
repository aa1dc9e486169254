//! A plugin that the agent runs: started, started again when it ends, and ended with the agent.
//!
//! One thread a plugin does nothing else: it starts the program in a process group of its own and waits for its end. The kernel kills the
//! program when that thread is gone, and so also when the agent was killed ([`PR_SET_PDEATHSIG`]); processes that it started in turn are found
//! by the variable with the socket's path, which no other agent's have, and ended before the program is started again.
//!
//! [`PR_SET_PDEATHSIG`]: https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html

#![allow(unsafe_code)]

use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// The variable that tells a plugin where to listen.
pub(super) const SOCKET: &str = "TEPUI_ISOLATOR_SOCKET";
/// The variable that tells it its name.
const NAME: &str = "TEPUI_ISOLATOR_NAME";

/// Pauses between two starts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// A program that has run so long, or has been of use, is started again after the shortest pause.
const STEADY: Duration = Duration::from_secs(30);
/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// A longer line is split.
const LONGEST_LINE: u64 = 8 << 10;
/// What fits into the address of a Unix socket.
const LONGEST_SOCKET: usize = 107;

/// A program that is kept running.
pub(super) struct Program {
    state: Arc<Watched>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    /// Not a program.
    #[error("{} is not a program that can be started: {why}", path.display())]
    Unfit {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Nobody could listen there.
    #[error(
        "the path of its socket, {}, is longer than {LONGEST_SOCKET} bytes: use a shorter --runtime_dir or name", .0.display()
    )]
    Socket(PathBuf),
    /// No thread.
    #[error("no thread can be started to look after it: {0}")]
    Thread(#[from] io::Error),
}

/// What the thread and the others share.
struct Watched {
    name: String,
    path: PathBuf,
    socket: PathBuf,
    life: Mutex<Life>,
    changed: Condvar,
}

#[derive(Default)]
struct Life {
    /// The process, and so the group, while there is one.
    running: Option<Pid>,
    /// It is to end for good.
    stopping: bool,
    /// How the last one ended.
    trouble: Option<String>,
    /// Whether the present one, or the last, has been of use.
    useful: bool,
}

// === impl Program ===

impl Program {
    /// Starts the program, with the path of the socket at which it shall listen in its environment.
    ///
    /// # Errors
    /// When it cannot be one, or there is no thread to look after it.
    pub fn start(name: &str, path: &Path, socket: &Path) -> Result<Self, ProgramError> {
        let unfit = |why: String| ProgramError::Unfit { path: path.to_owned(), why };
        let found = path.metadata().map_err(|error| unfit(error.to_string()))?;
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            return Err(unfit("it is not an executable file".to_owned()));
        }
        if socket.as_os_str().len() > LONGEST_SOCKET {
            return Err(ProgramError::Socket(socket.to_owned()));
        }
        let state = Arc::new(Watched {
            name: name.to_owned(),
            path: path.to_owned(),
            socket: socket.to_owned(),
            life: Mutex::default(),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&state);
        let thread = std::thread::Builder::new().name(format!("plugin-{name}"));
        let thread = thread.spawn(move || watched.run())?;
        Ok(Self { state, thread: Mutex::new(Some(thread)) })
    }

    /// Ends it; it is started again.
    pub fn start_anew(&self) {
        if let Some(group) = self.state.life().running {
            tracing::warn!(
                plugin = self.state.name,
                "A plugin makes no sense of itself again and again; it is started anew."
            );
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    /// Ends it for good, with SIGTERM and, if that is not enough, SIGKILL. Blocks until it has ended.
    pub fn end(&self) {
        let state = &self.state;
        let mut life = state.life();
        life.stopping = true;
        state.changed.notify_all();
        if let Some(group) = life.running {
            let _ = killpg(group, Signal::SIGTERM);
        }
        let waited = state.changed.wait_timeout_while(life, GRACE, |life| life.running.is_some());
        let (life, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = life.running {
            let _ = killpg(group, Signal::SIGKILL);
        }
        drop(life);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// It answers as it should.
    pub fn note_use(&self) {
        self.state.life().useful = true;
    }

    /// How it ended, if it does not run.
    pub fn trouble(&self) -> Option<String> {
        let life = self.state.life();
        if life.running.is_some() { None } else { life.trouble.clone() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

// === impl Watched ===

impl Watched {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it is to end for good.
    fn run(&self) {
        let mut pause = PAUSE.0;
        loop {
            self.end_leftovers();
            let begun = Instant::now();
            let ended = self.live();
            let mut life = self.life();
            if life.stopping {
                break;
            }
            if life.useful || begun.elapsed() >= STEADY {
                pause = PAUSE.0;
            }
            tracing::warn!(plugin = self.name, program = %self.path.display(), ended, ?pause, "A plugin's program has ended; it will be started again.");
            life.trouble = Some(format!("its program {ended}; "));
            let waited = self.changed.wait_timeout_while(life, pause, |life| !life.stopping);
            let (life, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if life.stopping {
                break;
            }
            pause = (pause * 2).min(PAUSE.1);
        }
        self.end_leftovers();
        let _ = std::fs::remove_file(&self.socket);
    }

    /// One life of the program; how it ended.
    fn live(&self) -> String {
        // One that is there would be taken for the new program's.
        let _ = std::fs::remove_file(&self.socket);
        let (mut child, output) = {
            let mut life = self.life();
            if life.stopping {
                return String::new();
            }
            life.useful = false;
            match self.spawn() {
                Ok((child, output)) => {
                    life.running = Some(Pid::from_raw(child.id().cast_signed()));
                    (child, output)
                }
                Err(error) => return format!("cannot be started: {error}"),
            }
        };
        let group = Pid::from_raw(child.id().cast_signed());
        tracing::info!(plugin = self.name, program = %self.path.display(), pid = group.as_raw(), "A plugin's program is started.");
        let name = self.name.clone();
        let reader = std::thread::Builder::new().name(format!("plugin-{name}-log"));
        let reader = reader.spawn(move || pass_on(&name, output));
        wait_for_end(group);
        // Its group goes with it. Nobody has waited for it yet, so that its number is still its own.
        let _ = killpg(group, Signal::SIGKILL);
        {
            let mut life = self.life();
            life.running = None;
            self.changed.notify_all();
        }
        let ended = match child.wait() {
            Ok(status) => format!("ended ({status})"),
            Err(error) => format!("cannot be waited for ({error})"),
        };
        self.end_leftovers();
        if let Ok(reader) = reader {
            let _ = reader.join();
        }
        ended
    }

    fn spawn(&self) -> io::Result<(Child, PipeReader)> {
        let (output, input) = io::pipe()?;
        let agent = std::process::id();
        let mut command = Command::new(&self.path);
        command
            .env(SOCKET, &self.socket)
            .env(NAME, &self.name)
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input)
            .process_group(0)
            .current_dir("/");
        let before_exec = move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The agent may have died before that.
            if nix::unistd::getppid().as_raw().cast_unsigned() != agent {
                return Err(Errno::ESRCH.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec, only system calls are made: no lock is taken and nothing is allocated.
        unsafe { command.pre_exec(before_exec) };
        Ok((command.spawn()?, output))
    }

    /// Kills whatever process has our socket's path in its environment: what an earlier program, of this run or another, has left. Looks again
    /// until there is none, for one may have come of another meanwhile.
    fn end_leftovers(&self) {
        let mut variable = format!("{SOCKET}=").into_bytes();
        variable.extend_from_slice(self.socket.as_os_str().as_bytes());
        let deadline = Instant::now() + GRACE;
        loop {
            let killed = self.kill_those_with(&variable);
            if killed.is_empty() {
                return;
            }
            for process in &killed {
                let left = deadline.saturating_duration_since(Instant::now());
                wait_readable(process, left);
            }
            if Instant::now() >= deadline {
                tracing::warn!(plugin = self.name, "Processes that a plugin has left do not end.");
                return;
            }
        }
    }

    /// Those that were sent SIGKILL, which may not have ended yet.
    fn kill_those_with(&self, variable: &[u8]) -> Vec<OwnedFd> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let own = std::process::id();
        let mut killed = Vec::new();
        for process in processes.flatten() {
            let pid = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid.filter(|pid| *pid != own) else { continue };
            let has_it = || {
                // One that has ended meanwhile has none, whether it was waited for or not.
                let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
                environment.split(|byte| *byte == 0).any(|one| one == variable)
            };
            if !has_it() {
                continue;
            }
            let pid = Pid::from_raw(pid.cast_signed());
            let Ok(held) = pidfd_open(pid) else { continue };
            // The number cannot have gone to another process in between if that has the variable too.
            if has_it() && pidfd_kill(&held).is_ok() {
                tracing::info!(
                    plugin = self.name,
                    pid = pid.as_raw(),
                    "Ending a process that a plugin has left."
                );
                killed.push(held);
            }
        }
        killed
    }
}

/// A file that becomes readable when the process ends, and stands for no other that gets its number ([pidfd_open(2)]).
///
/// [pidfd_open(2)]: https://man7.org/linux/man-pages/man2/pidfd_open.2.html
fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: this call takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pidfd_kill(process: &OwnedFd) -> nix::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and without `info` nothing is read.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, info, 0)
    })
    .map(drop)
}

/// Waits until the file is readable, not longer than that.
fn wait_readable(file: &OwnedFd, longest: Duration) {
    let deadline = Instant::now() + longest;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Of more milliseconds than fit, the longest that do.
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}

/// Waits until a child has ended, and leaves it to be waited for.
fn wait_for_end(child: Pid) {
    let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(child), how) == Err(Errno::EINTR) {}
}

/// Writes what a program says into the log, line by line, until nobody is left to say anything.
fn pass_on(plugin: &str, output: PipeReader) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        tracing::info!(plugin, "{}", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("program");
        let new = dir.join("new");
        std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_program_that_ends_is_started_again_and_all_of_it_goes_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        // The sleeper is in a session of its own, and not in the group that is killed.
        let text = format!(
            "setsid sleep 1000 & echo $! $$ $TEPUI_ISOLATOR_SOCKET $TEPUI_ISOLATOR_NAME >> {}\nwait",
            told.display()
        );
        let path = script(dir.path(), &text);
        let socket = dir.path().join("s");
        let program = Program::start("mine", &path, &socket).unwrap();
        until("it runs", || lines(&told).len() == 1);
        let first: Vec<String> = lines(&told)[0].split(' ').map(str::to_owned).collect();
        assert_eq!(first[2..], [socket.to_str().unwrap().to_owned(), "mine".to_owned()]);
        assert!(alive(&first[0]) && alive(&first[1]));
        program.start_anew();
        until("it runs again", || lines(&told).len() == 2);
        assert!(!alive(&first[0]) && !alive(&first[1]), "nothing is left of the first");
        let second: Vec<String> = lines(&told)[1].split(' ').map(str::to_owned).collect();
        drop(program);
        assert!(!alive(&second[0]) && !alive(&second[1]), "nothing is left of the second");
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let text = format!("trap '' TERM\necho $$ > {}\nwhile :; do sleep 0.1; done", told.display());
        let path = script(dir.path(), &text);
        let program = Program::start("mine", &path, &dir.path().join("s")).unwrap();
        until("it runs", || lines(&told).len() == 1);
        drop(program);
        assert!(!alive(&lines(&told)[0]));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [dir.path(), file.as_path(), Path::new("/no/such/program")] {
            assert!(matches!(
                Program::start("mine", path, &dir.path().join("s")),
                Err(ProgramError::Unfit { .. })
            ));
        }
        let path = script(dir.path(), "exit 0");
        let long = dir.path().join("x".repeat(100));
        assert!(matches!(Program::start("mine", &path, &long), Err(ProgramError::Socket(_))));
    }
}
