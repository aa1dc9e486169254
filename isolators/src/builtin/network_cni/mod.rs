//! `network/cni`: containers have networks of their own, made by plugins of the Container Network Interface.
//!
//! A container that names networks gets a network namespace. The namespace is held by a bind mount before the first plugin is called, so that all can be detached
//! whatever becomes of the container's processes. What is attached is written down before it is done (`checkpoint`); after a
//! crash, what was left half done is undone. Drives CLONE_NEWNET through the runtime spec, setns(2), rtnetlink(7) for the loopback interface and for rate
//! limits, and `/proc/<pid>/net` and sock_diag(7) for statistics.
//!
//! | file | what it tells |
//! | --- | --- |
//! | `config` | the operator's files |
//! | `plan` | from a task and those files to what is to be attached |
//! | `chain`, `plugin`, `outcome` | calling plugins, and what they say |
//! | `checkpoint`, `namespace` | what outlives the agent |
//! | `files`, `dns` | the container's `/etc/hosts` and so on |
//! | `limits`, `netlink` | rate limits |
//! | `usage`, `rtt` | statistics |
//!
//! Rules: the CNI specification, 0.1.0 to 1.0.0; network_namespaces(7); Mesos' `docs/cni.md`.

mod chain;
mod checkpoint;
mod config;
mod dns;
mod files;
mod limits;
mod namespace;
mod netlink;
mod outcome;
mod plan;
mod plugin;
mod rtt;
mod usage;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci_spec::runtime::LinuxNamespaceType;
use tepui_api::v1::{ContainerStatus, NetworkInfo, ResourceStatistics};

use super::own_namespace;
use super::table::Table;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, BindMount, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered, done,
};
use chain::Site;
use checkpoint::Checkpoint;
pub use dns::{ContainerDns, ContainerDnsError};
use limits::Rates;
pub use outcome::Dns;

/// The flags that concern networks.
#[derive(Debug, Clone)]
pub struct NetworkSettings {
    /// Where what is known of containers' networks is kept: `isolators/network/cni` below `--runtime_dir`, or below `--work_dir` to outlive a restart of the machine.
    pub root_dir: PathBuf,
    /// `--network_cni_root_dir_persist`: what is kept there is synced to the disk.
    pub persist: bool,
    /// `--network_cni_plugins_dir`: where plugins are looked for, in this order.
    pub plugins_dirs: Vec<PathBuf>,
    /// `--network_cni_config_dir`: the operator's networks.
    pub config_dir: Option<PathBuf>,
    /// `--network_cni_plugin_timeout`: how long one call of a plugin may take.
    pub plugin_timeout: Duration,
    /// `--network_cni_metrics`: usage has the containers' traffic.
    pub metrics: bool,
    /// `--default_container_dns`.
    pub dns: ContainerDns,
    /// `--egress_rate_limit_per_container`: bytes each second that a container may send through each of its interfaces.
    pub egress_rate_limit: Option<u64>,
    /// `--ingress_rate_limit_per_container`: the same of what it receives.
    pub ingress_rate_limit: Option<u64>,
    /// `--network_enable_snmp_statistics`: usage has the counters of IP, ICMP, TCP and UDP.
    pub snmp_statistics: bool,
    /// `--network_enable_socket_statistics_summary`: usage has the numbers of TCP connections.
    pub socket_statistics_summary: bool,
    /// `--network_enable_socket_statistics_details`: usage has the round trip times of TCP connections.
    pub socket_statistics_details: bool,
}

/// Mesos' defaults, and its runtime directory.
impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            root_dir: PathBuf::from("/var/run/mesos/isolators/network/cni"),
            persist: false,
            plugins_dirs: Vec::new(),
            config_dir: None,
            plugin_timeout: Duration::from_secs(20),
            metrics: true,
            dns: ContainerDns::default(),
            egress_rate_limit: None,
            ingress_rate_limit: None,
            snmp_statistics: false,
            socket_statistics_summary: false,
            socket_statistics_details: false,
        }
    }
}

struct NetworkCni(Arc<Inner>);

struct Inner {
    settings: NetworkSettings,
    containers: Table<Arc<Attached>>,
}

/// A container with networks of its own.
struct Attached {
    directory: PathBuf,
    /// Held for as long as plugins are at work.
    checkpoint: tokio::sync::Mutex<Checkpoint>,
    /// As the container's status has them.
    shown: Mutex<Vec<NetworkInfo>>,
    interfaces: Vec<String>,
    rates: Rates,
    /// Its first process; 0 until there is one.
    pid: AtomicU32,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let mut settings = parts.settings.network.clone();
    match (&settings.config_dir, settings.plugins_dirs.as_slice()) {
        (None, []) => {}
        (Some(_), []) => return Err(missing("network_cni_plugins_dir", "where the plugins are")),
        (None, _) => return Err(missing("network_cni_config_dir", "where the networks are described")),
        (Some(directory), _) => look_around(directory, &settings)?,
    }
    for (flag, limit) in [
        ("egress_rate_limit_per_container", &mut settings.egress_rate_limit),
        ("ingress_rate_limit_per_container", &mut settings.ingress_rate_limit),
    ] {
        let checked = limits::checked(limit.unwrap_or_default());
        *limit = checked.map_err(|why| MakeError::Setting(format!("--{flag}: {why}")))?;
    }
    let root = &settings.root_dir;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(root).and_then(|()| root.canonicalize());
    settings.root_dir =
        made.map_err(|error| MakeError::Host(format!("{} cannot be made: {error}", root.display())))?;
    Ok(Arc::new(NetworkCni(Arc::new(Inner { settings, containers: Table::default() }))))
}

fn missing(flag: &str, what: &str) -> MakeError {
    MakeError::Setting(format!(
        "the flag --{flag} is missing: say {what}, or leave out the other of its two flags"
    ))
}

/// Tells the operator at the start what would else be told to tasks.
fn look_around(directory: &Path, settings: &NetworkSettings) -> Result<(), MakeError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(MakeError::Host("network namespaces need an agent that runs as root".to_owned()));
    }
    if !Path::new("/proc/self/ns/net").exists() {
        return Err(MakeError::Host("the kernel has no network namespaces (CONFIG_NET_NS)".to_owned()));
    }
    let networks = config::Networks::read(directory).map_err(|error| {
        MakeError::Setting(format!(
            "--network_cni_config_dir: {} cannot be read: {error}",
            directory.display()
        ))
    })?;
    for unusable in &networks.unusable {
        tracing::warn!(file = %unusable.path.display(), why = unusable.why, "A file describes no network that can be used.");
    }
    for network in &networks.known {
        for config in &network.plugins {
            if let Err(why) = plugin::find(config::kind(config), &settings.plugins_dirs) {
                tracing::warn!(network = network.name, why, "A network cannot be used.");
            }
        }
    }
    Ok(())
}

impl Inner {
    fn directory(&self, id: &ContainerId) -> PathBuf {
        self.settings.root_dir.join(id.to_string())
    }

    fn prepare(&self, context: &ContainerContext, contribution: &mut Contribution) -> Result<(), String> {
        let Some(mut checkpoint) = plan::plan(context, &self.settings)? else {
            self.share(context, contribution);
            return Ok(());
        };
        let directory = self.directory(&context.container_id);
        if checkpoint.rates.egress.is_some() {
            for attachment in checkpoint.attachments.iter_mut().filter(|one| !one.limited_by_plugin) {
                attachment.egress_through = Some(limits::egress_name(&directory, &attachment.interface));
            }
        }
        let failed = |error: io::Error| format!("{} cannot be made: {error}", directory.display());
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed)?;
        checkpoint.save(&directory, self.settings.persist).map_err(failed)?;
        files::make(&directory).map_err(failed)?;
        for kind in [LinuxNamespaceType::Network, LinuxNamespaceType::Uts, LinuxNamespaceType::Mount] {
            own_namespace(&mut contribution.spec, kind);
        }
        contribution.spec.set_hostname(Some(checkpoint.hostname.clone()));
        for (source, target) in files::mounts(&directory, context.has_rootfs) {
            contribution.mounts.push(BindMount { source, target, recursive: false, read_only: false });
        }
        // What listens where the agent does would listen in vain.
        contribution.environment.insert("LIBPROCESS_IP".to_owned(), "0.0.0.0".to_owned());
        self.containers.insert(&context.container_id, Arc::new(Attached::new(directory, checkpoint, None)));
        Ok(())
    }

    /// A nested container without networks of its own is in those of the nearest above that has some, and sees that one's files.
    fn share(&self, context: &ContainerContext, contribution: &mut Contribution) {
        let above = std::iter::successors(context.container_id.parent.as_deref(), |id| id.parent.as_deref());
        let find = |id: &ContainerId| self.containers.with(id, |attached| attached.directory.clone()).ok();
        let Some(directory) = above.into_iter().find_map(find) else { return };
        for (source, target) in files::mounts(&directory, context.has_rootfs) {
            contribution.mounts.push(BindMount { source, target, recursive: false, read_only: false });
        }
        contribution.environment.insert("LIBPROCESS_IP".to_owned(), "0.0.0.0".to_owned());
    }

    async fn isolate(&self, id: &ContainerId, pid: u32) -> Result<(), IsolatorError> {
        let Ok(attached) = self.containers.with(id, |attached| Arc::clone(attached)) else { return Ok(()) };
        let mut checkpoint = attached.checkpoint.lock().await;
        attached.pid.store(pid, Ordering::Relaxed);
        let handle = checkpoint::namespace(&attached.directory);
        open(pid, &handle).map_err(|error| {
            IsolatorError::Failed(format!("the container's network namespace cannot be set up: {error}"))
        })?;
        let container = id.to_string();
        let site = self.site(&container, &attached.directory);
        chain::attach(site, &mut checkpoint).await.map_err(IsolatorError::Failed)?;
        attached.show(&checkpoint);
        let outcomes: Vec<_> = checkpoint.attachments.iter().map(checkpoint::Attachment::outcome).collect();
        let servers = checkpoint.attachments.iter().zip(&outcomes).filter_map(|(attachment, outcome)| {
            let said = Some(&outcome.dns).filter(|dns| !dns.nameservers.is_empty());
            said.or_else(|| self.settings.dns.of(&attachment.network)).cloned()
        });
        files::fill(&attached.directory, &checkpoint.hostname, &outcomes, &dns::joined(servers)).map_err(
            |error| IsolatorError::Failed(format!("the container's /etc/hosts cannot be written: {error}")),
        )
    }

    fn site<'a>(&'a self, container: &'a str, directory: &'a Path) -> Site<'a> {
        Site { settings: &self.settings, container, directory }
    }

    fn usage(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> io::Result<()> {
        let known = self.containers.with(id, |attached| Arc::clone(attached));
        let Ok(attached) = known else { return Ok(()) };
        let pid = attached.pid.load(Ordering::Relaxed);
        statistics.net_tx_rate_limit = attached.rates.egress;
        statistics.net_rx_rate_limit = attached.rates.ingress;
        if pid == 0 {
            return Ok(());
        }
        if self.settings.metrics {
            usage::traffic(pid, &attached.interfaces, statistics)?;
        }
        if self.settings.snmp_statistics {
            usage::snmp(pid, statistics)?;
        }
        if self.settings.socket_statistics_summary {
            usage::sockets(pid, statistics)?;
        }
        if self.settings.socket_statistics_details {
            rtt::add(&checkpoint::namespace(&attached.directory), statistics)?;
        }
        Ok(())
    }

    async fn recover(&self, known: &[Recovered], orphans: &[ContainerId]) -> io::Result<Vec<ContainerId>> {
        let mut running = Vec::new();
        for entry in fs::read_dir(&self.settings.root_dir)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let of_name = |id: &ContainerId| id.to_string() == name;
            if let Some(recovered) = known.iter().find(|one| of_name(&one.context.container_id)) {
                running.extend(self.take_over(recovered));
            } else if !orphans.iter().any(of_name) {
                tracing::info!(container = name, "Detaching a container that is gone from its networks.");
                if let Err(error) = self.clean_up(&ContainerId::new(name.as_str())).await {
                    tracing::error!(container = name, %error, "A container that is gone is still attached; the next start of the agent tries again.");
                }
            }
        }
        Ok(running)
    }

    /// Goes on with a container of an earlier run. Gives its id if it runs.
    fn take_over(&self, recovered: &Recovered) -> Option<ContainerId> {
        let id = &recovered.context.container_id;
        let directory = self.directory(id);
        let checkpoint = match Checkpoint::load(&directory) {
            Ok(Some(checkpoint)) => checkpoint,
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(container = %id, %error, "What is known of a container's networks cannot be read.");
                return None;
            }
        };
        let handle = checkpoint::namespace(&directory);
        // Where mounts do not outlive the agent, as in a mount namespace of its own.
        if let Some(pid) = recovered.pid
            && let Err(error) = namespace::hold(pid, &handle)
        {
            tracing::warn!(container = %id, %error, "A container's network namespace cannot be held.");
        }
        self.containers.insert(id, Arc::new(Attached::new(directory, checkpoint, recovered.pid)));
        recovered.pid.map(|_| id.clone())
    }

    /// Asks the plugins of containers whether their networks are as they made them; says so if not.
    async fn check(&self, running: Vec<ContainerId>) {
        for id in running {
            let Ok(attached) = self.containers.with(&id, |attached| Arc::clone(attached)) else { continue };
            let checkpoint = attached.checkpoint.lock().await;
            let container = id.to_string();
            for complaint in chain::check(self.site(&container, &attached.directory), &checkpoint).await {
                // One that was cleaned up meanwhile has nothing to check.
                if attached.directory.exists() {
                    tracing::warn!(
                        container,
                        complaint,
                        "A plugin finds a container's network other than it made it."
                    );
                }
            }
        }
    }

    async fn clean_up(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let directory = self.directory(id);
        let checkpoint = match self.containers.remove(id) {
            Some(attached) => Some(attached.checkpoint.lock().await.clone()),
            None => Checkpoint::load(&directory).map_err(|error| {
                let file = directory.display();
                IsolatorError::Failed(format!(
                    "what {file} says of the container's networks cannot be read: {error}"
                ))
            })?,
        };
        if !directory.exists() {
            return Ok(());
        }
        let mut detached = Ok(());
        if let Some(mut checkpoint) = checkpoint {
            let container = id.to_string();
            detached = chain::detach(self.site(&container, &directory), &mut checkpoint).await;
            if detached.is_err() {
                let saved = checkpoint.save(&directory, self.settings.persist);
                detached = detached.and(saved.map_err(|error| error.to_string()));
            }
        }
        let removed = remove(&directory, detached.is_ok())
            .map_err(|error| format!("{} cannot be removed: {error}", directory.display()));
        detached.and(removed).map_err(IsolatorError::Failed)
    }
}

impl Attached {
    fn new(directory: PathBuf, checkpoint: Checkpoint, pid: Option<u32>) -> Self {
        Self {
            directory,
            shown: Mutex::new(shown(&checkpoint)),
            interfaces: checkpoint.attachments.iter().map(|one| one.interface.clone()).collect(),
            rates: checkpoint.rates,
            pid: AtomicU32::new(pid.unwrap_or_default()),
            checkpoint: tokio::sync::Mutex::new(checkpoint),
        }
    }

    fn show(&self, checkpoint: &Checkpoint) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown(checkpoint);
    }

    fn shown(&self) -> Vec<NetworkInfo> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// As a container's status has its networks.
fn shown(checkpoint: &Checkpoint) -> Vec<NetworkInfo> {
    checkpoint.attachments.iter().map(checkpoint::Attachment::to_wire).collect()
}

/// Holds a container's network namespace and brings its loopback interface up.
fn open(pid: u32, handle: &Path) -> io::Result<()> {
    let own = |path: &str| fs::read_link(path);
    if own(&format!("/proc/{pid}/ns/net"))? == own("/proc/self/ns/net")? {
        return Err(io::Error::other("the container shares the agent's"));
    }
    namespace::hold(pid, handle)?;
    namespace::within(handle, || {
        let mut netlink = netlink::Netlink::open()?;
        match netlink.link("lo")? {
            Some(lo) => netlink.set_up(lo.index),
            None => Err(io::Error::other("it has no loopback interface")),
        }
    })
}

/// Removes a container's directory; without `wholly`, all but what tells what is still to be detached.
fn remove(directory: &Path, wholly: bool) -> io::Result<()> {
    namespace::release(&checkpoint::namespace(directory))?;
    files::remove(directory)?;
    if !wholly {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}

impl Isolator for NetworkCni {
    fn name(&self) -> &str {
        "network/cni"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], orphans: &'a [ContainerId]) -> Answer<'a> {
        Box::pin(async move {
            let recovered = self.0.recover(known, orphans).await;
            let running = recovered.map_err(|error| {
                let root = self.0.settings.root_dir.display();
                IsolatorError::Failed(format!("{root} cannot be read: {error}"))
            })?;
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move { inner.check(running).await });
            Ok(())
        })
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(self.0.prepare(context, contribution).map_err(IsolatorError::Refused))
    }

    fn isolate<'a>(&'a self, id: &'a ContainerId, pid: u32) -> Answer<'a> {
        Box::pin(self.0.isolate(id, pid))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        let read = self.0.usage(id, statistics);
        done(read.map_err(|error| IsolatorError::Failed(format!("no network statistics: {error}"))))
    }

    fn status<'a>(&'a self, id: &'a ContainerId, status: &'a mut ContainerStatus) -> Answer<'a> {
        if let Ok(shown) = self.0.containers.with(id, |attached| attached.shown()) {
            status.network_infos.extend(shown);
        }
        done(Ok(()))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        Box::pin(self.0.clean_up(id))
    }
}
