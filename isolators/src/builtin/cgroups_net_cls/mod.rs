//! `cgroups/net_cls`: a mark on a container's packets, by which `tc` and `iptables` know them.
//!
//! With `--cgroups_net_cls_primary_handle` each container gets a handle of its own: the primary one in the upper 16 bits, and below it
//! the lowest free one of `--cgroups_net_cls_secondary_handles`. It is written to `net_cls.classid` before any process is in the cgroup, so
//! that all its sockets have it, and told in `ContainerStatus.cgroup_info.net_cls.classid`. Without a primary handle the cgroup is
//! made and the mark left to the operator. The cgroup itself holds the handle while no agent runs.
//!
//! v1 only: on v2, packets are told apart by their cgroup's path (`iptables -m cgroup --path`).
//! Rules: the kernel's `admin-guide/cgroup-v1/net_cls.rst`; Mesos' `docs/isolators/cgroups-net-cls.md`.

mod handles;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tepui_api::v1::cgroup_info::NetCls;
use tepui_api::v1::{CgroupInfo, ContainerStatus};

use super::table::Table;
use crate::catalogue::Parts;
use crate::cgroups::{Cgroups, Controller, files};
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered, done,
};

use handles::Handles;
pub use handles::{HandleError, HandleRange, PrimaryHandle};

const FILE: &str = "net_cls.classid";

struct CgroupsNetCls {
    cgroups: Arc<Cgroups>,
    /// Absent when the operator assigns handles.
    handles: Option<Mutex<Handles>>,
    /// The mark of each container that has one.
    containers: Table<u32>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let settings = &parts.settings.cgroups;
    let handles = settings.net_cls_primary_handle.map(|primary| {
        Mutex::new(Handles::new(primary, settings.net_cls_secondary_handles.unwrap_or_default()))
    });
    Ok(Arc::new(CgroupsNetCls { cgroups: parts.cgroups()?, handles, containers: Table::default() }))
}

impl CgroupsNetCls {
    fn handles(&self) -> Option<MutexGuard<'_, Handles>> {
        self.handles.as_ref().map(|handles| handles.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn prepare(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let Some(mut handles) = self.handles() else { return Ok(()) };
        let handle = handles.allot().map_err(|error| IsolatorError::Failed(error.to_string()))?;
        drop(handles);
        // Known before it is written, so that `cleanup` gives it back in any case.
        self.containers.insert(id, handle);
        let (dir, _) = self.cgroups.dir(id, Controller::NetCls)?;
        Ok(files::write(&dir.join(FILE), handle)?)
    }

    fn recover_one(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let (dir, _) = self.cgroups.dir(id, Controller::NetCls)?;
        // No such cgroup: made by an agent without this isolator.
        let Some(handle) = files::read_number_if_there::<u32>(&dir.join(FILE))? else { return Ok(()) };
        if handle == 0 {
            return Ok(());
        }
        if let Some(mut handles) = self.handles()
            && !handles.reserve(handle)
        {
            tracing::warn!(
                container = %id, handle = format!("{handle:#010x}"),
                "The net_cls handle of this container is not one that this agent gives out, or another container has it too."
            );
        }
        self.containers.insert(id, handle);
        Ok(())
    }
}

impl Isolator for CgroupsNetCls {
    fn name(&self) -> &str {
        "cgroups/net_cls"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(known.iter().try_for_each(|one| self.recover_one(&one.context.container_id)))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(CgroupsNetCls::prepare(self, &context.container_id))
    }

    fn status<'a>(&'a self, id: &'a ContainerId, status: &'a mut ContainerStatus) -> Answer<'a> {
        if let Ok(handle) = self.containers.with(id, |handle| *handle) {
            let info = status.cgroup_info.get_or_insert_with(CgroupInfo::default);
            info.net_cls = Some(NetCls { classid: Some(handle) });
        }
        done(Ok(()))
    }

    /// All processes have ended, and with them their sockets: the handle is free.
    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        if let Some(handle) = self.containers.remove(id)
            && let Some(mut handles) = self.handles()
        {
            handles.free(handle);
        }
        done(Ok(()))
    }
}
