//! One tiny process per container: the shim.
//!
//! How a container comes to be, and which file tells that part:
//!
//! 1. The agent, still single-threaded, forks a [`Zygote`] (`zygote`). It stays a small process without
//!    threads, which is the only kind of process that may call `libcontainer` (it clones without exec).
//! 2. Per launch the agent writes two files into the container's runtime directory: `config.json`, the OCI
//!    runtime spec, and `launch.json`, the [`LaunchPlan`] (`plan`). It then asks the zygote for a shim and gets
//!    one end of a stream socket.
//! 3. The forked shim (`shim`) makes a mount namespace of its own and the root file system in it (`rootfs`, `overlay`), lets
//!    `libcontainer` create the container, whose first process ends in `executor`, mounts its volumes (`volumes`), puts it into its cgroups
//!    (`cgroup`), and starts it.
//!    What the program may do is put in force on the way (`privileges`).
//!    A container without a program has a process that only waits (`holder`).
//! 4. The shim serves its peers (`serve`): each line is a JSON [`Request`] or [`Event`] (`protocol`). Peers come
//!    and go; an agent that restarts finds the shim again by `shim.sock` ([`connect`]).
//!    They may have programs run in the container beside its own (`inside`), on a terminal if they like (`terminal`); [`enter`] is how they ask.
//!    Where output is rotated, the shim reads it and writes the files (`logger`).
//! 5. When the container's first process has ended, its status is written to `exit.json` (`exit`), then
//!    announced, and the shim ends. Its mount namespace goes with it, so no mount can be left over.
//!
//! The shim holds a lock on `alive` for as long as it lives ([`Liveness`]), so that an agent can tell at any time, and
//! without trusting process ids, whether somebody still looks after a container.
//!
//! The shim and what is in its namespace never remove a directory tree that has a mount in it: the agent does that when the container has ended,
//! from the host's namespace, where none of those mounts exists, and with [`remove_tree`], which stops at any that does.

#![allow(unsafe_code)]

mod cgroup;
mod enter;
mod executor;
mod exit;
mod floor;
mod handover;
mod holder;
mod inside;
mod liveness;
mod log;
mod logger;
mod overlay;
mod plan;
mod privileges;
mod processes;
mod protocol;
mod remove;
mod rootfs;
mod serve;
mod shim;
mod sys;
mod terminal;
mod volumes;
mod zygote;

pub use cgroup::LIBCONTAINER_PATH;
pub use enter::{EnterError, Entered, enter, terminal_of};
pub use exit::{ExitRecord, Outcome, Usage};
pub use floor::{FloorError, FloorTiming, bare_container_cycle, prepare_bare_root, renew_bare_root};
pub use inside::{Exec, ExecStdio, ExecUser};
pub use liveness::{Liveness, LivenessError, holders, shim_lives};
pub use logger::{LogFile, LogLimits, Rotation};
pub use overlay::{OverlayError, try_overlay};
pub use plan::{
    BindMount, ExecPlan, FirstProcess, LaunchPlan, PlanError, RootFs, Secrets, VolumePlan, VolumeSource,
    files,
};
pub use privileges::{CapabilitySets, Filter, INIT_CALLS, Privileges};
pub use protocol::{Event, ProtocolError, Request, SignalScope, State, connect, decode_line, encode_line};
pub use remove::{RemoveTreeError, remove_tree, remove_tree_strictly};
pub use terminal::{WindowSize, set_size};
pub use zygote::{Zygote, ZygoteError};
