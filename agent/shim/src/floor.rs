//! The floor under every container start: bare `libcontainer`, without a shim, a zygote or an agent.
//!
//! Used by the benchmark, from a process with one thread.

use std::path::Path;
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

/// Refuses. It used to mount the host's root beneath `dir` in the caller's own process, where removing `dir` removes the host's files.
pub fn prepare_bare_root(_dir: &Path) -> Result<(), FloorError> {
    Err(FloorError {
        step: "prepare",
        message: "prepare_bare_root is withdrawn: it put the host's files within reach of the caller"
            .to_owned(),
    })
}

/// Creates, starts, waits for and deletes one container that runs `/bin/true` on the host's files, and tells how long each step took.
///
/// `dir` is a scratch directory for which [`prepare_bare_root`] has been called by this process. The process must have one thread.
pub fn bare_container_cycle(dir: &Path, id: &str) -> Result<FloorTiming, FloorError> {
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
    // So that the next cycle finds an empty /dev again.
    rootfs::renew_device_cover(&dir.join("rootfs")).map_err(at("delete"))?;
    Ok(FloorTiming { create, start, wait, delete: begin.elapsed() })
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
        .cgroups_path(format!("/tepui-floor/{id}"))
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
