//! Programs that run inside a container beside its own: the shim's part of `exec`.
//!
//! ```text
//! shim ── fork ──► porter       enters the container's namespaces, makes the terminal, and ends
//!   ▲                └─ clone(CLONE_PARENT) ──► keeper    enters the cgroups, becomes the user
//!   └──────── status, by a pipe ──────────────────┘ └─ fork ──► the program
//! ```
//!
//! The keeper is a child of the shim, in the container, and adopts whatever the program's processes leave behind. So the whole tree hangs
//! below one process that the shim knows, and can be ended whether or not its parts have made sessions of their own. It is ended
//! with the program, when the peer that asked for it goes away, and with the container.
//!
//! The porter exists as a process that enters a PID namespace stays outside it; only its children are inside.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, fchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libcontainer::oci_spec::runtime::{Process, Spec};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setgroups, setresgid, setresuid, setsid};
use serde::{Deserialize, Serialize};

use crate::executor::{Input, Program};
use crate::logger::Logger;
use crate::plan::{ExecPlan, FirstProcess, LaunchPlan, files};
use crate::terminal::{self, WindowSize};
use crate::{handover, processes, sys};

/// A program to be run inside a container that runs.
///
/// All that is not said here is as the container's own program has it: namespaces, root, cgroups, privileges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program. Its path is looked up in the container.
    pub program: ExecPlan,
    /// Variables, as name and value, in place of those of the container's program that have the same name.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// Who it runs as.
    #[serde(default)]
    pub user: Option<ExecUser>,
    /// Where it starts, in the container.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Where its input comes from and its output goes.
    pub stdio: ExecStdio,
}

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Where a program's input comes from and its output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecStdio {
    /// No input; output is appended to the container's own.
    Container,
    /// Three files that come with the request: input, output, errors.
    Passed,
    /// A terminal that is made in the container. The peer gets its other end.
    Terminal(WindowSize),
}

/// Why a program does not run in a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("the container's own configuration cannot be read: {0}")]
    Config(String),
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("three files are to come with the request, and {0} came")]
    Files(usize),
    #[error("the container cannot be entered: {0}")]
    Enter(String),
}

fn at<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ExecError {
    move |error| ExecError::System { what, source: error.into() }
}

/// A container that programs can be run in.
pub(crate) struct Grounds<'a> {
    pub(crate) init: Pid,
    pub(crate) plan: &'a LaunchPlan,
    /// Variables that no file holds.
    pub(crate) secrets: &'a [(String, Vec<u8>)],
}

/// A program that runs in a container, or has.
pub(crate) struct Running {
    pub(crate) keeper: Pid,
    status: PipeReader,
    phase: Phase,
}

enum Phase {
    Runs,
    /// All that is left is being ended.
    Ends {
        /// The program's, where it is known.
        status: Option<i32>,
        /// How often nothing was left but the keeper.
        quiet: u8,
    },
}

/// So often the keeper is given time to tell the status of a program that is gone.
const LAST_WORDS: u8 = 10;

/// How long the porter may take. It only makes system calls that do not wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the porter says once the keeper is there; anything else is why it is not.
const READY: u8 = b'+';

impl Grounds<'_> {
    /// Begins to run a program. Gives the other end of its terminal, if it shall have one.
    pub(crate) fn begin(
        &self,
        exec: &Exec,
        passed: Vec<OwnedFd>,
        logger: Option<&mut Logger>,
    ) -> Result<(Running, Option<OwnedFd>), ExecError> {
        let stdio = self.stdio(exec.stdio, passed, logger)?;
        let spec = Spec::load(files::CONFIG).map_err(|error| ExecError::Config(error.to_string()))?;
        let process = spec.process().as_ref().ok_or_else(|| ExecError::Config("no process".to_owned()))?;
        let entrance = Entrance {
            namespaces: namespaces(self.init).map_err(at("the container's namespaces cannot be opened"))?,
            cgroups: self.cgroups().map_err(at("the container's cgroups cannot be opened"))?,
            oom_score_adj: self.plan.oom_score_adj,
        };
        let (status, report) = io::pipe().map_err(at("no pipe"))?;
        let (ours, theirs) = UnixStream::pair().map_err(at("no socket"))?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(at("no socket"))?;
        let keeper = Keeper {
            user: exec.user.clone().unwrap_or_else(|| user(process)),
            directory: exec.directory.clone().unwrap_or_else(|| process.cwd().clone()),
            environment: self.environment(exec, process),
            program: Program {
                exec: exec.program.clone(),
                first_process: FirstProcess::Init,
                privileges: self.plan.privileges.clone(),
                status_fd: report.as_raw_fd(),
                secrets: self.secrets.to_vec(),
                enter_again: true,
                input: match exec.stdio {
                    ExecStdio::Container => Input::Null,
                    ExecStdio::Passed => Input::Given,
                    ExecStdio::Terminal(_) => Input::Terminal,
                },
                lingers: true,
            },
        };
        // SAFETY: the shim has one thread.
        let porter = match unsafe { fork() }.map_err(at("no process"))? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let Err(message) = entrance.pass(&theirs, stdio, &keeper, &report);
                let _ = handover::send(&theirs, message.as_bytes(), &[]);
                // SAFETY: ends this forked process at once; the exit handlers are the agent's.
                unsafe { libc::_exit(1) }
            }
        };
        drop((theirs, report));
        let said = handover::receive(&ours);
        if said.is_err() {
            let _ = nix::sys::signal::kill(porter, Signal::SIGKILL);
        }
        let _ = waitpid(porter, None);
        let (words, mut terminals) = said.map_err(at("the process that enters the container is gone"))?;
        let Some((&READY, keeper)) = words.split_first() else {
            return Err(ExecError::Enter(String::from_utf8_lossy(&words).into_owned()));
        };
        let keeper = <[u8; 4]>::try_from(keeper).map_err(|_| ExecError::Enter("no process id".to_owned()))?;
        let running =
            Running { keeper: Pid::from_raw(i32::from_ne_bytes(keeper)), status, phase: Phase::Runs };
        Ok((running, terminals.pop()))
    }

    fn stdio(
        &self,
        wanted: ExecStdio,
        passed: Vec<OwnedFd>,
        logger: Option<&mut Logger>,
    ) -> Result<Stdio, ExecError> {
        match wanted {
            ExecStdio::Container => {
                let null = File::open("/dev/null").map_err(at("/dev/null cannot be opened"))?;
                let open = |path: &Path| crate::shim::open_output(path, self.plan.stdio_owner);
                let opened = match logger {
                    Some(logger) => logger.outputs(),
                    None => open(&self.plan.stdout)
                        .and_then(|out| Ok([out.into(), open(&self.plan.stderr)?.into()])),
                };
                let [out, error] = opened.map_err(at("the container's output cannot be opened"))?;
                Ok(Stdio::Files([null.into(), out, error]))
            }
            ExecStdio::Passed => <[OwnedFd; 3]>::try_from(passed)
                .map(Stdio::Files)
                .map_err(|files| ExecError::Files(files.len())),
            ExecStdio::Terminal(size) => Ok(Stdio::Terminal(size)),
        }
    }

    fn cgroups(&self) -> io::Result<Vec<File>> {
        self.plan.cgroup_procs.iter().map(|procs| File::options().write(true).open(procs)).collect()
    }

    fn environment(&self, exec: &Exec, process: &Process) -> Vec<String> {
        let replaced = |entry: &str| {
            let name = entry.split_once('=').map_or(entry, |(name, _)| name);
            exec.environment.iter().any(|(own, _)| own == name)
        };
        let own = exec.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let open = process.env().iter().flatten().filter(|entry| !replaced(entry)).cloned();
        open.chain(own).collect()
    }
}

fn user(process: &Process) -> ExecUser {
    let user = process.user();
    ExecUser { uid: user.uid(), gid: user.gid(), groups: user.additional_gids().clone().unwrap_or_default() }
}

/// The namespaces that the container has of its own, in the order in which they are entered: that of mounts last, as the others' files are
/// of no more use in it. All in it have one user namespace.
fn namespaces(init: Pid) -> io::Result<Vec<(File, CloneFlags)>> {
    let kinds = [
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let mut found = Vec::new();
    for (name, kind) in kinds {
        let theirs = match File::open(format!("/proc/{init}/ns/{name}")) {
            // The kernel has none of this kind.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "cgroup" => continue,
            opened => opened?,
        };
        let ours = fs::metadata(format!("/proc/self/ns/{name}"))?;
        if theirs.metadata()?.ino() != ours.ino() {
            found.push((theirs, kind));
        }
    }
    Ok(found)
}

enum Stdio {
    Files([OwnedFd; 3]),
    Terminal(WindowSize),
}

/// What is opened on the host, and used on the way in.
struct Entrance {
    namespaces: Vec<(File, CloneFlags)>,
    cgroups: Vec<File>,
    oom_score_adj: Option<i32>,
}

impl Entrance {
    /// The porter's life. Comes back only with an error.
    fn pass(
        &self,
        shim: &UnixStream,
        stdio: Stdio,
        keeper: &Keeper,
        report: &PipeWriter,
    ) -> Result<Infallible, String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        // Nobody in the container looks into a process that is on its way in, nor finds the agent's program by it.
        prctl::set_dumpable(false).map_err(|error| failed("dumpable", &error))?;
        if let Some(adjustment) = self.oom_score_adj {
            fs::write("/proc/self/oom_score_adj", adjustment.to_string())
                .map_err(|error| failed("oom_score_adj", &error))?;
        }
        for (namespace, kind) in &self.namespaces {
            setns(namespace, *kind).map_err(|error| failed("a namespace of the container", &error))?;
        }
        let (files, terminal) = match stdio {
            Stdio::Files(files) => (files, None),
            Stdio::Terminal(size) => {
                let made = terminal::make(size, (keeper.user.uid, keeper.user.gid))
                    .map_err(|error| failed("no terminal", &error))?;
                let copies = [made.slave.try_clone(), made.slave.try_clone(), Ok(made.slave)];
                let [first, second, third] = copies;
                let copied = |error| failed("no terminal", &error);
                ([first.map_err(copied)?, second.map_err(copied)?, third.map_err(copied)?], Some(made.master))
            }
        };
        // SAFETY: this process has one thread; without CLONE_VM the child has its own copy of everything, as after fork.
        match Errno::result(unsafe { sys::fork_sibling() }).map_err(|error| failed("no process", &error))? {
            0 => {
                let code = keeper.live(&files, &self.cgroups, report);
                // SAFETY: ends this forked process at once; the exit handlers are the agent's.
                unsafe { libc::_exit(code) }
            }
            pid => {
                let pid = i32::try_from(pid).map_err(|_| "no process id".to_owned())?;
                let words = [&[READY][..], &pid.to_ne_bytes()].concat();
                handover::send(shim, &words, terminal.as_ref().map(AsFd::as_fd).as_slice())
                    .map_err(|error| error.to_string())?;
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

/// What becomes the program's parent.
struct Keeper {
    user: ExecUser,
    directory: PathBuf,
    environment: Vec<String>,
    program: Program,
}

impl Keeper {
    /// Its life, in a process of its own. Gives the process' exit code.
    fn live(&self, stdio: &[OwnedFd; 3], cgroups: &[File], report: &PipeWriter) -> i32 {
        // From here on an error can be told as the program would.
        for (file, number) in stdio.iter().zip(0..) {
            self.own_pipe(file);
            if sys::redirect(file, number).is_err() {
                return 1;
            }
        }
        match self.settle(cgroups, report) {
            Ok(()) => self.program.keep(&self.environment, &self.directory),
            Err(why) => self.program.cannot("execute", &why),
        }
    }

    /// Gives a pipe to the user, who may want to open it again by a name such as `/dev/stdout`.
    fn own_pipe(&self, file: &OwnedFd) {
        let is_pipe =
            nix::sys::stat::fstat(file).is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFIFO);
        if is_pipe {
            // If that is not possible, the file is open all the same.
            let _ = fchown(file, Some(self.user.uid), Some(self.user.gid));
        }
    }

    fn settle(&self, cgroups: &[File], report: &PipeWriter) -> Result<(), String> {
        let _ = setsid();
        let _ = prctl::set_name(c"tepui-exec");
        for procs in cgroups {
            // Itself, whatever its number is here.
            nix::unistd::write(procs, b"0").map_err(|error| format!("cgroup: {error}"))?;
        }
        // What the shim has open is no business of the container's; its lock least of all.
        sys::close_all_but(&[report.as_raw_fd()]);
        prctl::set_child_subreaper(true).map_err(|error| format!("subreaper: {error}"))?;
        self.program.privileges.raise_limits(Pid::this()).map_err(|error| error.to_string())?;
        sys::clear_environment();
        if let Some(path) = self.environment.iter().find_map(|entry| entry.strip_prefix("PATH=")) {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var("PATH", path) };
        }
        self.become_user().map_err(|error| format!("the user {}: {error}", self.user.uid))?;
        self.program.privileges.bound().map_err(|error| error.to_string())?;
        // Without a PID namespace nothing else ends it if the shim dies.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("no parent death signal: {error}"))
    }

    /// The permitted capabilities are kept until the program is executed, as `privileges` wants it.
    fn become_user(&self) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        let groups: Vec<Gid> = self.user.groups.iter().copied().map(Gid::from_raw).collect();
        prctl::set_keepcaps(true)?;
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        prctl::set_keepcaps(false)?;
        crate::privileges::regain()
    }
}

impl Running {
    /// Becomes readable when the program has ended.
    pub(crate) fn ended(&self) -> Option<BorrowedFd<'_>> {
        matches!(self.phase, Phase::Runs).then(|| self.status.as_fd())
    }

    /// Whether it has to be looked after again soon.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ends { .. })
    }

    /// The program has ended; so shall all that it has left.
    pub(crate) fn end(&mut self, status: Option<i32>) {
        if !self.is_ending() {
            self.phase = Phase::Ends { status, quiet: 0 };
        }
    }

    /// Takes note of the program's end.
    pub(crate) fn take_status(&mut self) {
        let status = crate::shim::reported(&self.status);
        self.end(status);
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&mut self, number: i32) -> io::Result<()> {
        if number == libc::SIGKILL {
            self.end(None);
            return Ok(());
        }
        if number == libc::SIGSTOP {
            return processes::stop(self.keeper);
        }
        // The keeper passes it on.
        processes::send(self.keeper, number)
    }

    /// Goes on with its end. Gives the status when all is over.
    pub(crate) fn go_on(&mut self) -> Option<i32> {
        let Phase::Ends { status, quiet } = &mut self.phase else { return None };
        let left = processes::below(self.keeper);
        for pid in &left {
            let _ = processes::send(*pid, libc::SIGKILL);
        }
        // Somebody in the container may have stopped it, and it has the ended ones to wait for.
        let _ = processes::send(self.keeper, libc::SIGCONT);
        if left.is_empty() {
            *status = status.or_else(|| crate::shim::reported(&self.status));
            *quiet += 1;
            if status.is_some() || *quiet > LAST_WORDS {
                let _ = processes::send(self.keeper, libc::SIGKILL);
            }
        }
        let own = sys::wait_if_ended(self.keeper)?;
        // The keeper's own counts only if it was killed before it could tell the program's.
        Some(status.or_else(|| crate::shim::reported(&self.status)).unwrap_or(own))
    }
}
