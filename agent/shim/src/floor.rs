//! The floor under every container start: bare `libcontainer`, without a shim, a zygote or an agent.
//!
//! Used by the benchmark, from a process of its own with one thread. That process calls [`prepare_bare_root`], which moves it into
//! a private mount namespace and shows it the host's files, read-only, below the scratch directory; then
//! [`bare_container_cycle`] as often as it likes. It must not remove anything itself: whoever started it removes the scratch directory
//! with [`crate::remove_tree`] when it has ended, in a namespace where nothing is mounted there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{
    LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, MountBuilder, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder,
};
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::rootfs;
use crate::shim::chain;

/// How long each step took.
#[derive(Debug, Clone, Copy)]
pub struct FloorTiming {
    /// `create`: until the container's first process stands ready.
    pub create: Duration,
    /// `start`: until it was told to run its program.
    pub start: Duration,
    /// Until it had ended.
    pub wait: Duration,
    /// `delete`: cgroups and state removed.
    pub delete: Duration,
}

/// The cycle failed.
#[derive(Debug, thiserror::Error)]
#[error("bare libcontainer failed at {step}: {message}")]
pub struct FloorError {
    step: &'static str,
    message: String,
}

fn at<E: std::error::Error>(step: &'static str) -> impl Fn(E) -> FloorError {
    move |error| FloorError { step, message: chain(&error) }
}

fn refuse(message: &str) -> FloorError {
    FloorError { step: "prepare", message: message.to_owned() }
}

/// The mount namespace that [`prepare_bare_root`] made, and for which directory.
static PREPARED: OnceLock<(u64, PathBuf)> = OnceLock::new();

fn namespace() -> std::io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/mnt")?.ino())
}

/// Moves this process into a mount namespace of its own, in which the host's root file system appears at `dir`'s `rootfs`: read-only throughout,
/// with an empty `/dev`. Nobody else sees that mount, and it vanishes with the process.
///
/// # Errors
/// When this process has more than one thread, is not root, or has called it before; when the namespace is not a new
/// one afterwards; and when a mount fails.
pub fn prepare_bare_root(dir: &Path) -> Result<(), FloorError> {
    let root = dir.join("rootfs");
    std::fs::create_dir_all(&root).map_err(at("prepare"))?;
    if std::fs::read_dir("/proc/self/task").map_err(at("prepare"))?.count() != 1 {
        return Err(refuse("it is for a process with one thread"));
    }
    if PREPARED.get().is_some() {
        return Err(refuse("this process has been prepared before"));
    }
    let before = namespace().map_err(at("prepare"))?;
    rootfs::enter_private_namespace().map_err(at("prepare"))?;
    let own = namespace().map_err(at("prepare"))?;
    if own == before {
        return Err(refuse("the kernel gave no mount namespace of its own"));
    }
    rootfs::show_host_read_only(&root).map_err(at("prepare"))?;
    PREPARED.set((own, dir.to_owned())).map_err(|_| refuse("this process has been prepared before"))
}

/// Gives the root file system that [`prepare_bare_root`] made an empty `/dev` again.
///
/// [`bare_container_cycle`] does so itself; this is for other runtimes that are measured on the same root file system.
///
/// # Errors
/// When [`prepare_bare_root`] was not called for `dir`, and when a mount fails.
pub fn renew_bare_root(dir: &Path) -> Result<(), FloorError> {
    check_prepared(dir)?;
    rootfs::renew_device_cover(&dir.join("rootfs")).map_err(at("delete"))
}

fn check_prepared(dir: &Path) -> Result<(), FloorError> {
    let own = namespace().map_err(at("prepare"))?;
    match PREPARED.get() {
        Some((prepared, of)) if *prepared == own && of == dir => Ok(()),
        _ => Err(refuse("prepare_bare_root was not called for this directory in this process")),
    }
}

/// Creates, starts, waits for and deletes one container that runs `/bin/true` on the host's files, and tells how long each step took.
///
/// `dir` is a scratch directory for which [`prepare_bare_root`] has been called by this process. The process must have one thread.
///
/// # Errors
/// When it has not, and when a step fails.
pub fn bare_container_cycle(dir: &Path, id: &str) -> Result<FloorTiming, FloorError> {
    check_prepared(dir)?;
    let spec = floor_spec(&dir.join("rootfs"), id)?;
    let bundle = dir.join("bundle");
    std::fs::create_dir_all(&bundle).map_err(at("prepare"))?;
    spec.save(bundle.join("config.json")).map_err(at("prepare"))?;
    let begin = Instant::now();
    let mut container = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(dir.join("state"))
        .map_err(at("create"))?
        .as_init(&bundle)
        .with_systemd(false)
        .build()
        .map_err(at("create"))?;
    let create = begin.elapsed();
    let begin = Instant::now();
    container.start().map_err(at("start"))?;
    let start = begin.elapsed();
    let begin = Instant::now();
    if let Some(pid) = container.pid() {
        waitpid(Pid::from_raw(pid.as_raw()), None).map_err(at("wait"))?;
    }
    let wait = begin.elapsed();
    let begin = Instant::now();
    container.delete(true).map_err(at("delete"))?;
    let delete = begin.elapsed();
    // So that the next cycle finds an empty /dev again.
    renew_bare_root(dir)?;
    Ok(FloorTiming { create, start, wait, delete })
}

fn floor_spec(root: &Path, id: &str) -> Result<Spec, FloorError> {
    let namespaces = [
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
    ]
    .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build());
    let namespaces = namespaces.into_iter().collect::<Result<Vec<_>, _>>().map_err(at("spec"))?;
    let proc = MountBuilder::default()
        .destination("/proc")
        .typ("proc")
        .source("proc")
        .options(["nosuid", "noexec", "nodev"].map(str::to_owned))
        .build()
        .map_err(at("spec"))?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .cwd("/")
        .args(["/bin/true".to_owned()])
        .env(["PATH=/usr/bin:/bin".to_owned()])
        .no_new_privileges(false)
        .build()
        .map_err(at("spec"))?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .cgroups_path(format!("/tepui-floor-{id}"))
        .build()
        .map_err(at("spec"))?;
    SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path(root).readonly(false).build().map_err(at("spec"))?)
        .mounts([proc])
        .process(process)
        .linux(linux)
        .build()
        .map_err(at("spec"))
}
