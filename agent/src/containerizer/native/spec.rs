//! The OCI runtime spec of a container, before and after the isolators, and the bind mounts that the shim makes.
//!
//! | | without an image | with one |
//! | --- | --- | --- |
//! | `/` | the host's, with all its mounts | overlay of the image's layers, or a copy |
//! | `/tmp` | its own, removed with it | the image's |
//! | sandbox | at the host's path | at `--sandbox_directory` |
//! | `/proc` | its own | its own; what concerns the machine is hidden or read-only |
//! | `/sys` | the host's | read-only, without cgroups |
//! | `/dev` | the host's | null, zero, full, random, urandom, tty; terminals and shared memory of its own |
//! | `/etc/resolv.conf`, `hosts`, `hostname` | the host's | the host's, read-only |
//!
//! Namespaces for mounts, processes, System V IPC and host names are always the container's own, unless an isolator decides otherwise.
//! A container with a parent has only the first two of its own, and shares the others, and the network, with its parent ([`join`]).
//! Capabilities are those of the user: all of root's, as in Mesos without `linux/capabilities`.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use tepui_shim::{BindMount, FirstProcess, LIBCONTAINER_PATH, files};

use super::user::User;
use crate::containerizer::config::ContainerConfig;

/// What a container with an image cannot see, as in Mesos (`ROOTFS_MASKED_PATHS`).
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// What it cannot write to, as in Mesos (`ROOTFS_CONTAINER_MOUNTS`).
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What every container begins with.
pub(super) fn base(config: &ContainerConfig) -> Result<Spec, OciSpecError> {
    let own: &[LinuxNamespaceType] = match config.container_id.parent {
        None => &[
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Ipc,
            LinuxNamespaceType::Uts,
        ],
        Some(_) => &[LinuxNamespaceType::Mount, LinuxNamespaceType::Pid],
    };
    let namespaces = own.iter().map(|kind| LinuxNamespaceBuilder::default().typ(*kind).build());
    let namespaces = namespaces.collect::<Result<Vec<_>, _>>()?;
    let mut linux = LinuxBuilder::default().namespaces(namespaces).cgroups_path(LIBCONTAINER_PATH).build()?;
    // The builder's defaults hide parts of /proc for everybody.
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    linux.set_resources(None);
    linux.set_masked_paths(config.image().map(|_| paths(&MASKED)));
    linux.set_readonly_paths(config.image().map(|_| paths(&READ_ONLY)));
    let mut mounts = vec![mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?];
    if config.image().is_some() {
        mounts.extend(image_mounts()?);
    }
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path(files::ROOTFS).readonly(false).build()?)
        .mounts(mounts)
        .linux(linux)
        .build()?;
    // The builder's default has a process, with few capabilities and few open files.
    spec.set_process(None);
    let hostname = config.container.as_ref().and_then(|container| container.hostname.clone());
    spec.set_hostname(hostname.filter(|name| !name.is_empty()));
    Ok(spec)
}

fn image_mounts() -> Result<Vec<Mount>, OciSpecError> {
    Ok(vec![
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        )?,
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "nodev", "noexec", "mode=1777"])?,
    ])
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options = options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
    MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()
}

/// What runs, as whom, where and in which environment.
pub(super) struct Process<'a> {
    pub argv: &'a [String],
    pub environment: Vec<String>,
    pub directory: &'a str,
    pub user: &'a User,
}

/// Completes the spec once the isolators have had their say.
pub(super) fn complete(spec: &mut Spec, process: Process<'_>) -> Result<(), OciSpecError> {
    let user = UserBuilder::default()
        .uid(process.user.uid)
        .gid(process.user.gid)
        .additional_gids(process.user.groups.clone())
        .build()?;
    let mut built = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(process.argv.to_vec())
        .env(process.environment)
        .cwd(process.directory)
        .no_new_privileges(false)
        .build()?;
    // The builder's default is a small set. What isolators have set is in the launch plan by now: see `privileges`.
    built.set_capabilities(None);
    built.set_rlimits(None);
    spec.set_process(Some(built));
    // The shim's root file system needs one in any case.
    if !has(spec, LinuxNamespaceType::Mount)
        && let Some(namespaces) = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut())
    {
        namespaces.push(LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Mount).build()?);
    }
    Ok(())
}

/// Has a container enter those namespaces of its parent's first process that it has none of its own of, and that are not the agent's own
/// anyway. Blocks on the kernel.
pub(super) fn join(spec: &mut Spec, parent: u32) -> std::io::Result<()> {
    let kinds = [
        (LinuxNamespaceType::Network, "net"),
        (LinuxNamespaceType::Ipc, "ipc"),
        (LinuxNamespaceType::Uts, "uts"),
        (LinuxNamespaceType::Pid, "pid"),
    ];
    for (kind, name) in kinds {
        let theirs = PathBuf::from(format!("/proc/{parent}/ns/{name}"));
        if has(spec, kind) || theirs.read_link()? == Path::new("/proc/self/ns").join(name).read_link()? {
            continue;
        }
        let namespace = LinuxNamespaceBuilder::default().typ(kind).path(theirs).build();
        let namespace = namespace.map_err(std::io::Error::other)?;
        if let Some(all) = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut()) {
            all.push(namespace);
        }
    }
    Ok(())
}

/// What the first process is to be: without a PID namespace, nobody needs an init.
pub(super) fn first_process(spec: &Spec, config: &ContainerConfig) -> FirstProcess {
    if config.holder {
        return FirstProcess::Holder;
    }
    if has(spec, LinuxNamespaceType::Pid) { FirstProcess::Init } else { FirstProcess::Program }
}

fn has(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|namespaces| namespaces.iter().any(|namespace| namespace.typ() == kind))
}

/// What is mounted beneath `/dev`, each once.
pub(super) fn device_mounts(spec: &Spec, binds: &[BindMount]) -> Vec<PathBuf> {
    let of_spec = spec.mounts().iter().flatten().map(|mount| mount.destination().as_path());
    let all = binds.iter().map(|bind| bind.target.as_path()).chain(of_spec);
    let beneath = all.filter(|path| path.starts_with("/dev") && *path != Path::new("/dev"));
    let once: std::collections::BTreeSet<_> = beneath.map(Path::to_owned).collect();
    once.into_iter().collect()
}

/// The bind mounts of a container on the host's root file system.
pub(super) fn host_mounts(config: &ContainerConfig, tmp: PathBuf) -> Vec<BindMount> {
    let mut mounts = vec![bind(tmp, "/tmp".into())];
    // Hidden by the container's own /tmp.
    if config.sandbox.starts_with("/tmp") {
        mounts.push(bind(config.sandbox.clone(), config.sandbox.clone()));
    }
    mounts
}

/// The bind mounts of a container on an image.
pub(super) fn image_binds(config: &ContainerConfig, sandbox_directory: &str) -> Vec<BindMount> {
    let mut mounts = vec![bind(config.sandbox.clone(), sandbox_directory.into())];
    for file in ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"] {
        // With links followed: the file itself is what is mounted.
        if let Ok(source) = Path::new(file).canonicalize()
            && source.is_file()
        {
            mounts.push(BindMount { source, target: file.into(), recursive: false, read_only: true });
        }
    }
    mounts
}

fn bind(source: PathBuf, target: PathBuf) -> BindMount {
    BindMount { source, target, recursive: true, read_only: false }
}
