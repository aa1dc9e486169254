//! What the container's first process does once `libcontainer` has set everything up: run the program.
//!
//! All of this happens inside the container, as its user. A program that cannot be executed is no failure of the
//! launch: as in Mesos, the container starts, says so on its standard error, and exits with status 1.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, execvpe, fork, setsid};

use crate::plan::{ExecPlan, FirstProcess};
use crate::privileges::Privileges;
use crate::{sys, terminal};

/// What Mesos' containerizer exits with when it cannot execute a task's command (`EXIT_FAILURE`).
const CANNOT_EXECUTE: i32 = 1;

/// Runs the program of a [`crate::LaunchPlan`].
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) exec: ExecPlan,
    pub(crate) first_process: FirstProcess,
    /// What the program may do.
    pub(crate) privileges: Privileges,
    /// Where a minimal init reports the program's raw wait status.
    pub(crate) status_fd: RawFd,
    /// Variables that no file holds. They replace those of the same name.
    pub(crate) secrets: Vec<(String, Vec<u8>)>,
    /// Whether the working directory may have been covered by a volume since it was entered.
    pub(crate) enter_again: bool,
    /// What it reads.
    pub(crate) input: Input,
    /// Whether a minimal init stays when the program has ended, to hold together what that has left until it is killed.
    pub(crate) lingers: bool,
}

/// What a program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nothing.
    Null,
    /// The standard input that this process has.
    Given,
    /// The same, which is a terminal that shall control the program's session.
    Terminal,
}

impl Executor for Program {
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        let refused = |error: crate::privileges::PrivilegeError| {
            ExecutorValidationError::ArgValidationError(error.to_string())
        };
        self.privileges.bound().map_err(refused)?;
        // If the shim dies, so shall the container. The kernel forgets this wish when the user or the capabilities change,
        // which has happened by now.
        set_pdeathsig(Signal::SIGKILL).map_err(|error| {
            ExecutorValidationError::ArgValidationError(format!("no parent death signal: {error}"))
        })?;
        Ok(())
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        sys::clear_environment();
        if let Some(path) = envs.get("PATH") {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var("PATH", path) };
        }
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let environment = process.and_then(|process| process.env().as_deref()).unwrap_or_default();
        let start = Start {
            environment: self.environment(environment),
            directory: process.map(|process| process.cwd().as_path()).filter(|_| self.enter_again),
        };
        let code = match self.first_process {
            FirstProcess::Program => self.become_program(&start),
            FirstProcess::Init => self.be_init(&start),
            // The shim makes it without `libcontainer`.
            FirstProcess::Holder => CANNOT_EXECUTE,
        };
        // SAFETY: ends this forked process at once; the exit handlers are the agent's.
        unsafe { libc::_exit(code) }
    }
}

/// How the program is to be started.
struct Start<'a> {
    environment: Vec<Vec<u8>>,
    /// To be entered first.
    directory: Option<&'a Path>,
}

impl Program {
    fn environment(&self, open: &[String]) -> Vec<Vec<u8>> {
        let replaced = |entry: &&String| {
            let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
            self.secrets.iter().any(|(secret, _)| secret == name)
        };
        let open = open.iter().filter(|entry| !replaced(entry)).map(|entry| entry.as_bytes().to_vec());
        let secret = self.secrets.iter().map(|(name, value)| [name.as_bytes(), b"=", value].concat());
        open.chain(secret).collect()
    }

    /// As a minimal init beside the container's own. Returns this process' exit code.
    pub(crate) fn keep(&self, environment: &[String], directory: &Path) -> i32 {
        self.be_init(&Start { environment: self.environment(environment), directory: Some(directory) })
    }

    /// Replaces this process by the program. Returns an exit code if that is not possible.
    fn become_program(&self, start: &Start<'_>) -> i32 {
        sys::default_signals();
        match self.input {
            // The one opened before the container's /dev was in its place may come from another file system.
            Input::Null => {
                if let Ok(null) = File::open("/dev/null") {
                    let _ = sys::redirect(&null, 0);
                }
            }
            Input::Given => {}
            Input::Terminal => {
                if let Err(error) = terminal::take_control() {
                    return self.cannot("give a terminal to", &error.to_string());
                }
            }
        }
        if let Some(directory) = start.directory
            && let Err(error) = enter(directory)
        {
            return self.cannot(&format!("enter {} for", directory.display()), &error.to_string());
        }
        let Err(error) = self.replace(&start.environment);
        self.cannot("execute", &error)
    }

    /// Says so on the program's standard error. Returns an exit code.
    pub(crate) fn cannot(&self, what: &str, why: &str) -> i32 {
        let _ = writeln!(io::stderr(), "Failed to {what} '{}': {why}", self.exec.path);
        CANNOT_EXECUTE
    }

    fn replace(&self, environment: &[Vec<u8>]) -> Result<Infallible, String> {
        fn strings(list: &[impl AsRef<[u8]>]) -> Result<Vec<CString>, NulError> {
            list.iter().map(|text| CString::new(text.as_ref())).collect()
        }
        let nul = |_| "a string with a zero byte cannot be passed to a program".to_owned();
        let path = CString::new(self.exec.path.as_bytes()).map_err(nul)?;
        let mut argv = strings(&self.exec.argv).map_err(nul)?;
        if argv.is_empty() {
            argv.push(path.clone());
        }
        let environment = strings(environment).map_err(nul)?;
        self.privileges.settle().map_err(|error| error.to_string())?;
        execvpe(&path, &argv, &environment).map_err(|errno| errno.desc().to_owned())
    }

    /// Runs the program as a child, reaps orphans, passes signals on, reports the program's status. Returns this process' exit code.
    fn be_init(&self, start: &Start<'_>) -> i32 {
        if !self.lingers {
            let _ = nix::sys::prctl::set_name(c"tepui-init");
        }
        // Blocked signals are taken up by `wait` below; unblocked ones the kernel would withhold from a namespace's first process.
        let all = SigSet::all();
        let mut before = SigSet::empty();
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before));
        let gate = match Gate::new(&self.privileges) {
            Ok(gate) => gate,
            Err(error) => return self.cannot("fork", &error.to_string()),
        };
        // SAFETY: this process has one thread.
        let program = match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => child,
            Ok(ForkResult::Child) => {
                let _ = setsid();
                let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
                return match gate.map_or(Ok(()), Gate::wait) {
                    Ok(()) => self.become_program(start),
                    Err(reason) => self.cannot("execute", &reason),
                };
            }
            Err(error) => return self.cannot("fork", error.desc()),
        };
        match gate {
            None => detach(&[self.status_fd]),
            Some(gate) => {
                let open = gate.into_writer();
                detach(&[self.status_fd, open.as_raw_fd()]);
                Gate::open(open, self.privileges.settle_init());
            }
        }
        loop {
            let mut number = 0;
            // SAFETY: both pointers are to live local variables.
            unsafe { libc::sigwait(all.as_ref(), &mut number) };
            if number != libc::SIGCHLD {
                // SAFETY: takes integers only. Not `nix`'s, which has no real-time signals.
                unsafe { libc::kill(program.as_raw(), number) };
                continue;
            }
            if let Some(status) = reap(program) {
                // SAFETY: the shim made this descriptor for us before the container was created.
                let pipe = unsafe { BorrowedFd::borrow_raw(self.status_fd) };
                let _ = nix::unistd::write(pipe, &status.to_ne_bytes());
                if !self.lingers {
                    return 0;
                }
            }
        }
    }
}

/// Enters a directory of the container's root file system. A path like `/proc/self/fd/7`, which an image may name as its working directory, could lead to
/// what the shim has open of the host: the kernel gives no path from the root to that, and it is left again.
fn enter(directory: &Path) -> io::Result<()> {
    std::env::set_current_dir(directory)?;
    std::env::current_dir().map(drop).map_err(|_| {
        let _ = std::env::set_current_dir("/");
        io::Error::other("it is not within the container's root file system")
    })
}

/// Keeps the program back until its init has given up what the program could take from it.
struct Gate {
    reader: PipeReader,
    writer: PipeWriter,
}

/// What an init says that is ready; anything else is why it is not.
const READY: &[u8] = b"+";

impl Gate {
    /// There is none where there is nothing to give up.
    fn new(privileges: &Privileges) -> io::Result<Option<Self>> {
        if !privileges.any() {
            return Ok(None);
        }
        let (reader, writer) = io::pipe()?;
        Ok(Some(Self { reader, writer }))
    }

    /// In the program's process.
    fn wait(self) -> Result<(), String> {
        let Self { mut reader, writer } = self;
        drop(writer);
        let mut said = Vec::new();
        reader.read_to_end(&mut said).map_err(|error| error.to_string())?;
        if said == READY { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
    }

    fn into_writer(self) -> PipeWriter {
        self.writer
    }

    /// In the init.
    fn open(mut writer: PipeWriter, settled: Result<(), crate::privileges::PrivilegeError>) {
        let _ = match settled {
            Ok(()) => writer.write_all(READY),
            Err(error) => write!(writer, "the container's init is not ready: {error}"),
        };
    }
}

/// Lets go of everything of the container's that an idle init has no use for.
fn detach(keep: &[RawFd]) {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        for fd in 0..3 {
            let _ = sys::redirect(&null, fd);
        }
    }
    let _ = std::env::set_current_dir("/");
    sys::close_all_but(keep);
    sys::trim_heap();
}

/// Reaps every child that has ended; the raw status of `program` if it was among them.
fn reap(program: Pid) -> Option<i32> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a live local variable.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if pid == program.as_raw() {
            found = Some(status);
        }
    }
}
