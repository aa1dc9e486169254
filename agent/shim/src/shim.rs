//! One shim's life, from the fork in the zygote to its end.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, setgroups, setsid};

use crate::executor::{Input, Program};
use crate::exit::{ExitRecord, Outcome, Usage};
use crate::inside::Grounds;
use crate::liveness::SHIM;
use crate::logger::{LogFile, Logger, Outputs};
use crate::plan::{FirstProcess, LaunchPlan, RootFs, Secrets, files};
use crate::processes::Processes;
use crate::protocol::State;
use crate::serve::{Held, Server};
use crate::terminal::{Screen, Terminal};
use crate::{cgroup, holder, log, rootfs, sys, terminal, volumes};

/// A container that could not be started: which step, and why.
struct Failure {
    stage: &'static str,
    message: String,
}

fn at<E: std::error::Error>(stage: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure { stage, message: chain(&error) }
}

impl From<Failure> for ExitRecord {
    fn from(Failure { stage, message }: Failure) -> Self {
        Self { outcome: Outcome::Failed { stage: stage.to_owned(), message }, usage: Usage::default() }
    }
}

/// An error with its causes, in one line. `libcontainer`'s errors keep the telling part in the cause.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Runs a shim in the process that the zygote has just forked. Returns its exit code.
pub(crate) fn run(dir: &Path, control: UnixStream, alive: OwnedFd, secrets: Option<File>) -> i32 {
    // Held, never used: see `liveness`.
    let _alive = alive;
    // The zygote ignores SIGCHLD so that shims need not be reaped; `libcontainer` and we do wait for our children.
    // SAFETY: the default disposition runs no code.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(SHIM);
    let Ok(home) = open_home(dir) else { return 72 };
    let Ok(listener) = UnixListener::bind(files::SOCKET) else { return 73 };
    let mut server = Server::new(listener, control);
    let record = look_after(dir, &mut server, secrets).unwrap_or_else(ExitRecord::from);
    if record.save(&home).is_err() {
        return 74;
    }
    server.announce(State::Ended(record));
    0
}

/// Makes the runtime directory the working directory, and sends what the shim itself has to say to its log.
///
/// Nothing of the agent's may stay open: whoever reads the agent's output to its end would wait for every container.
fn open_home(dir: &Path) -> io::Result<File> {
    std::env::set_current_dir(dir)?;
    let log = File::options().create(true).append(true).mode(0o600).open(files::LOG)?;
    sys::redirect(&log, 1)?;
    sys::redirect(&log, 2)?;
    log::begin(log);
    File::open(".")
}

/// The container's whole life.
fn look_after(dir: &Path, server: &mut Server, secrets: Option<File>) -> Result<ExitRecord, Failure> {
    let plan = LaunchPlan::load(dir).map_err(at("plan"))?;
    let secrets = match secrets {
        Some(file) => serde_json::from_reader(io::BufReader::new(file)).map_err(at("secrets"))?,
        None => Secrets::default(),
    };
    let variables = secrets.environment.clone();
    let mut created = create(dir, &plan, secrets)?;
    let init = created.init;
    server.keep_output(created.logger.take());
    if plan.hold {
        server.announce(State::Created { pid: init.as_raw() });
        match server.hold(init).map_err(at("start"))? {
            Held::Started => {}
            Held::Abandoned => {
                let message = "nobody is left who could start the container".to_owned();
                return Err(Failure { stage: "start", message });
            }
        }
    }
    if let Some(container) = &mut created.container {
        container.start().map_err(at("start"))?;
    }
    let processes = Processes::new(init, &plan);
    server.screen = created.screen.take();
    server.announce(State::Started { pid: init.as_raw() });
    sys::trim_heap();
    let grounds = Grounds { init, plan: &plan, secrets: &variables };
    server.run_until_exit(&grounds, &processes).map_err(at("serve"))?;
    if let Some(screen) = &mut server.screen {
        // What the program wrote last.
        screen.read();
    }
    let (own, usage) = sys::wait4(init).map_err(at("wait"))?;
    if plan.first_process == FirstProcess::Program {
        processes.end_the_rest();
    }
    server.finish_output();
    let status = reported(&created.status).unwrap_or(own);
    Ok(ExitRecord { outcome: Outcome::Exited { status }, usage })
}

/// A container that is there and has not been started.
struct Created {
    /// As `libcontainer` knows it; none of a holder.
    container: Option<Container>,
    init: Pid,
    status: PipeReader,
    /// What writes its output, if that is rotated.
    logger: Option<Logger>,
    screen: Option<Screen>,
}

fn create(dir: &Path, plan: &LaunchPlan, secrets: Secrets) -> Result<Created, Failure> {
    let created = match plan.first_process {
        FirstProcess::Holder => hold_only()?,
        FirstProcess::Program | FirstProcess::Init => create_whole(dir, plan, secrets)?,
    };
    let init = created.init;
    for procs in &plan.cgroup_procs {
        cgroup::enter(procs, init).map_err(at("cgroups"))?;
    }
    if let Some(adjustment) = plan.oom_score_adj {
        let file = format!("/proc/{init}/oom_score_adj");
        fs::write(file, adjustment.to_string()).map_err(at("oom_score_adj"))?;
    }
    plan.privileges.raise_limits(init).map_err(at("rlimits"))?;
    fs::write(files::PID, init.to_string()).map_err(at("start"))?;
    Ok(created)
}

/// A container without a program: namespaces, and a process that holds them.
fn hold_only() -> Result<Created, Failure> {
    let spec = Spec::load(files::CONFIG).map_err(at("create"))?;
    // Nobody reports a program's status.
    let (status, _) = io::pipe().map_err(at("stdio"))?;
    let init = holder::start(&spec).map_err(at("create"))?;
    Ok(Created { container: None, init, status, logger: None, screen: None })
}

fn create_whole(dir: &Path, plan: &LaunchPlan, secrets: Secrets) -> Result<Created, Failure> {
    let mut volumes = volumes::open_on_host(plan).map_err(at("volumes"))?;
    rootfs::enter_namespace().map_err(at("rootfs"))?;
    let target = dir.join(files::ROOTFS);
    rootfs::build(&plan.rootfs, &target, &plan.mounts).map_err(at("rootfs"))?;
    if plan.rootfs != RootFs::Host
        && let Some(directory) = &plan.directory
    {
        rootfs::make_directory(&target, directory).map_err(at("rootfs"))?;
    }
    volumes.complete(plan, &secrets).map_err(at("volumes"))?;
    let hidden = cgroup::hide().map_err(at("cgroups"))?;
    // The agent's supplementary groups are none of the container's business.
    setgroups(&[]).map_err(at("groups"))?;
    if plan.first_process == FirstProcess::Program {
        nix::sys::prctl::set_child_subreaper(true).map_err(at("subreaper"))?;
    }
    let (status, report) = io::pipe().map_err(at("stdio"))?;
    let (stdio, logger) = outputs(plan).map_err(at("stdio"))?;
    let (container, init, screen) = call_libcontainer(dir, plan, secrets.environment, report, stdio)?;
    hidden.reveal().map_err(at("cgroups"))?;
    if plan.rootfs == RootFs::Host {
        rootfs::uncover_devices(init, &plan.device_mounts).map_err(at("rootfs"))?;
    }
    volumes.attach(plan, init).map_err(at("volumes"))?;
    Ok(Created { container: Some(container), init, status, logger, screen })
}

/// What the container writes into, and what reads the other end.
fn outputs(plan: &LaunchPlan) -> io::Result<([OwnedFd; 2], Option<Logger>)> {
    // A terminal's output is written by the shim in any case.
    if let Some(rotation) = plan.rotation.as_ref().filter(|_| plan.terminal.is_none()) {
        let (logger, Outputs { stdout, stderr }) = Logger::begin(plan, rotation)?;
        return Ok(([stdout.into(), stderr.into()], Some(logger)));
    }
    let stdout = open_output(&plan.stdout, plan.stdio_owner)?;
    let stderr = if plan.stderr == plan.stdout {
        stdout.try_clone()?
    } else {
        open_output(&plan.stderr, plan.stdio_owner)?
    };
    Ok(([stdout.into(), stderr.into()], None))
}

fn call_libcontainer(
    dir: &Path,
    plan: &LaunchPlan,
    secrets: Vec<(String, Vec<u8>)>,
    report: PipeWriter,
    [stdout, stderr]: [OwnedFd; 2],
) -> Result<(Container, Pid, Option<Screen>), Failure> {
    let terminal = plan.terminal.map(|size| terminal::make(size, plan.stdio_owner)).transpose();
    let terminal = terminal.map_err(at("terminal"))?;
    let program = Program {
        exec: plan.exec.clone(),
        first_process: plan.first_process,
        privileges: plan.privileges.clone(),
        status_fd: report.as_raw_fd(),
        secrets,
        enter_again: !plan.volumes.is_empty(),
        input: if terminal.is_some() { Input::Terminal } else { Input::Null },
        lingers: false,
    };
    let mut builder = ContainerBuilder::new(plan.container_id.clone(), SyscallType::default())
        .with_root_path(dir.join(files::STATE))
        .map_err(at("create"))?
        .with_executor(program);
    let screen = match terminal {
        None => {
            builder = builder.with_stdout(stdout).with_stderr(stderr);
            None
        }
        Some(Terminal { master, slave }) => {
            let copy = || slave.try_clone().map_err(at("terminal"));
            builder = builder.with_stdin(copy()?).with_stdout(copy()?).with_stderr(copy()?);
            let limits = plan.rotation.map(|rotation| rotation.stdout);
            let file = LogFile::open(&plan.stdout, Some(plan.stdio_owner), limits).map_err(at("stdio"))?;
            Some(Screen::new(master, file))
        }
    };
    let container =
        builder.validate_id().map_err(at("create"))?.as_init(dir).with_systemd(false).build().map_err(
            |error| {
                // What follows is about the cgroup that it was not given (see `cgroup`).
                let message = chain(&error);
                let message = message.split(". error during cleanup").next().unwrap_or_default();
                let message = match log::first_words(files::LOG) {
                    Some(cause) => format!("{message} ({cause})"),
                    None => message.to_owned(),
                };
                Failure { stage: "create", message }
            },
        )?;
    // Only the container may hold this end from here on.
    drop(report);
    let init = container.pid().ok_or(Failure { stage: "create", message: "no process id".to_owned() })?;
    Ok((container, Pid::from_raw(init.as_raw()), screen))
}

pub(crate) fn open_output(path: &Path, (uid, gid): (u32, u32)) -> io::Result<File> {
    // Not through a link: the directory, or one above it that holds a parent's sandbox, may belong to the user whose program
    // this is, and we are root.
    let open = |create: bool| {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let (flags, mode) = match create {
            true => (flags | OFlag::O_CREAT | OFlag::O_EXCL, 0o644),
            false => (flags, 0),
        };
        let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(mode));
        let opened = openat2(AT_FDCWD, path, how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS));
        opened.map(File::from).map_err(io::Error::from)
    };
    match open(true) {
        Ok(file) => {
            fchown(&file, Some(uid), Some(gid))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(false),
        Err(error) => Err(error),
    }
}

/// The program's status, if a minimal init has reported it. Without one, or if that was killed, nothing was written.
pub(crate) fn reported(pipe: &PipeReader) -> Option<i32> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    // A process that outlived its container's first could hold the other end for ever.
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut bytes = [0; 4];
    let read = nix::unistd::read(pipe, &mut bytes).ok()?;
    (read == bytes.len()).then(|| i32::from_ne_bytes(bytes))
}
