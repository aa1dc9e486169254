//! The life cycle that every isolator shares: [`Isolator`], and the plain data that goes in and out.
//!
//! | when | call | order |
//! | --- | --- | --- |
//! | the agent starts | [`recover`](Isolator::recover) | as composed |
//! | before a container is created | [`prepare`](Isolator::prepare) | as composed |
//! | created, not started | [`isolate`](Isolator::isolate) | any |
//! | its resources change | [`update`](Isolator::update) | any |
//! | somebody asks | [`usage`](Isolator::usage), [`status`](Isolator::status) | any |
//! | its first process has ended | [`exited`](Isolator::exited) | any |
//! | all its processes have ended, or a launch failed | [`cleanup`](Isolator::cleanup) | reversed |
//! | the agent stops, and containers go on | [`stop`](Isolator::stop) | reversed |
//!
//! Calls for one container never overlap; calls for different containers do. What an isolator notices on its own (an OOM, a
//! disk that is full) it sends as a [`Limitation`] into the channel it was given when it was made.
//!
//! The built-in isolators finish each call without waiting; a call may take some milliseconds in the kernel. A plugin behind a
//! socket waits. After `prepare` was called, `cleanup` is called once, whether or not `prepare` succeeded; `cleanup` of a
//! container that the isolator does not know is fine.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use oci_spec::runtime::Spec;
use tepui_api::resources::Resources;
use tepui_api::v1;
pub use v1::ContainerId;

use crate::cgroups::CgroupError;
use crate::volume::{SecretBytes, VolumeMount};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What most calls answer.
pub type Answer<'a, T = ()> = BoxFuture<'a, Result<T, IsolatorError>>;

/// Where isolators report that a container overstepped a limit. The receiver ends the container.
pub type LimitationSender = tokio::sync::mpsc::UnboundedSender<Limitation>;

/// Hard limits beyond the requests, by resource name, in the resource's unit (`cpus`, megabytes of `mem`).
/// `f64::INFINITY` lifts the limit. From `TaskInfo.limits`.
pub type Limits = BTreeMap<String, f64>;

/// One concern of isolation.
pub trait Isolator: Send + Sync {
    /// The name as in `--isolation`.
    fn name(&self) -> &str;

    /// Looks after containers that outlived the agent, and forgets what is left of those that did not.
    ///
    /// `known` are running (or ended without the agent's knowledge); each ends with `cleanup` as usual.
    /// `orphans` are unknown to the agent's store: all their processes have ended, and `cleanup` follows for each.
    fn recover<'a>(&'a self, known: &'a [Recovered], orphans: &'a [ContainerId]) -> Answer<'a> {
        let _ = (known, orphans);
        done(Ok(()))
    }

    /// Before the container is created: makes what the host must have, and adds its part to what is being composed.
    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        let _ = (context, contribution);
        done(Ok(()))
    }

    /// Between creation and start. `pid` is the container's first process as the host sees it.
    fn isolate<'a>(&'a self, id: &'a ContainerId, pid: u32) -> Answer<'a> {
        let _ = (id, pid);
        done(Ok(()))
    }

    /// The container's resources are others from now on.
    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, limits: &'a Limits) -> Answer<'a> {
        let _ = (id, requests, limits);
        done(Ok(()))
    }

    /// Adds the figures that this isolator knows. Leaves the others, among them the time, alone.
    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut v1::ResourceStatistics) -> Answer<'a> {
        let _ = (id, statistics);
        done(Ok(()))
    }

    /// Adds what this isolator knows of the container's status.
    fn status<'a>(&'a self, id: &'a ContainerId, status: &'a mut v1::ContainerStatus) -> Answer<'a> {
        let _ = (id, status);
        done(Ok(()))
    }

    /// The first process has ended; `wait_status` is as `waitpid` gives it. Answers the limitation that ended the container, if
    /// one did, whether or not it was reported into the channel before: the exit may be heard first.
    fn exited<'a>(&'a self, id: &'a ContainerId, wait_status: i32) -> Answer<'a, Option<Limitation>> {
        let _ = (id, wait_status);
        done(Ok(None))
    }

    /// Removes all that this isolator made for the container.
    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        let _ = id;
        done(Ok(()))
    }

    /// The agent stops. What the isolator has for itself, such as processes, ends; what containers have stays. Not called when the agent is killed.
    fn stop(&self) -> BoxFuture<'_, ()> {
        done(())
    }
}

/// The answer of a call that need not wait.
pub fn done<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

/// What a container is to be: all that isolators are told of it.
#[derive(Debug, Clone)]
pub struct ContainerContext {
    /// Its id, with its parents if it is nested.
    pub container_id: ContainerId,
    /// The executor it belongs to.
    pub executor: Option<v1::ExecutorInfo>,
    /// The task, if the container runs one task: a command task, or a nested container of a task group.
    pub task: Option<v1::TaskInfo>,
    /// The container info in force: the task's, else the executor's.
    pub container: Option<v1::ContainerInfo>,
    /// What was asked for.
    pub requests: Resources,
    /// Hard limits, where they differ from the requests.
    pub limits: Limits,
    /// The sandbox, as the host sees it. Absolute.
    pub sandbox: PathBuf,
    /// The user that the program runs as. Absent: the agent's own.
    pub user: Option<String>,
    /// Whether the container has a root file system of its own, from an image, rather than the host's.
    pub has_rootfs: bool,
    /// Volumes of which the isolators must not count the content to the sandbox: absolute paths on the host.
    pub volumes: Vec<PathBuf>,
}

/// A container that outlived the agent.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// What it was made from, with its resources as last updated.
    pub context: ContainerContext,
    /// Its first process, as the host sees it; absent if it has ended.
    pub pid: Option<u32>,
}

/// What isolators add to a container before it is created. The caller begins with what every container needs.
#[derive(Debug, Clone, Default)]
pub struct Contribution {
    /// The OCI runtime spec being composed. The caller begins with the namespaces that every container has (isolators add
    /// theirs), and decides on the root file system, the program, and the cgroups.
    pub spec: Spec,
    /// Environment of the program, beyond what the caller sets.
    pub environment: BTreeMap<String, String>,
    /// Bind mounts, made in this order onto the root file system before the mounts of `spec`.
    pub mounts: Vec<BindMount>,
    /// Volumes, mounted in this order when all other mounts are there.
    pub volumes: Vec<VolumeMount>,
    /// Environment of the program that is told to it alone, and to no file. Stronger than `environment`; no value has a zero byte.
    pub secret_environment: BTreeMap<String, SecretBytes>,
    /// The `cgroup.procs` files that the container's first process must be written to before it runs the program.
    pub cgroup_procs: Vec<PathBuf>,
    /// The first process' `oom_score_adj`, if it shall not be the agent's.
    pub oom_score_adj: Option<i32>,
}

/// A bind mount of a host's path onto the container's root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container; created if absent.
    pub target: PathBuf,
    /// With the mounts beneath `source`.
    pub recursive: bool,
    /// Cannot be written through.
    pub read_only: bool,
}

/// A container overstepped a limit and must be ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Limitation {
    /// The container.
    pub container_id: ContainerId,
    /// What it used of the resource, or the quota it went over: for `TaskStatus.limitation`.
    pub resources: Vec<v1::Resource>,
    /// For `TaskStatus.message`.
    pub message: String,
    /// For `TaskStatus.reason`.
    pub reason: v1::task_status::Reason,
}

/// A call of an isolator failed.
#[derive(Debug, thiserror::Error)]
pub enum IsolatorError {
    /// The container asks for what cannot be had here; no other agent's fault.
    #[error("{0}")]
    Refused(String),
    /// The isolator was not told of this container.
    #[error("the container {0} is unknown to this isolator")]
    Unknown(ContainerId),
    /// A cgroup could not be made, read, written or removed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Anything else; the text says what and what to do.
    #[error("{0}")]
    Failed(String),
}
