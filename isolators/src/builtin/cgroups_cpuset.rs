//! `cgroups/cpuset`: the CPUs and memory nodes that a container runs on.
//!
//! A container has those of `--cgroups_root`, unless the labels `tepui.cpuset.cpus` and `tepui.cpuset.mems` name some of them, in the
//! kernel's form (`0-3,8`). Mesos' isolator makes the cgroup and leaves it to operators.
//!
//! | | v1 and v2 | what there is |
//! | --- | --- | --- |
//! | CPUs | `cpuset.cpus` | v1 `cpuset.cpus`, v2 `cpuset.cpus.effective` of the root |
//! | memory nodes | `cpuset.mems` | v1 `cpuset.mems`, v2 `cpuset.mems.effective` of the root |
//!
//! That a new v1 cgroup begins with its parent's is seen to where cgroups are made. Rules: the kernel's
//! `admin-guide/cgroup-v1/cpusets.rst`, `admin-guide/cgroup-v2.rst` ("Cpuset").

use std::sync::Arc;

use super::cpu_list::CpuList;
use super::labels;
use crate::catalogue::Parts;
use crate::cgroups::{CgroupError, Cgroups, Controller, Version, files};
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

struct CgroupsCpuset {
    cgroups: Arc<Cgroups>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(CgroupsCpuset { cgroups: parts.cgroups()? }))
}

impl CgroupsCpuset {
    fn prepare(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        self.set(context, labels::CPUSET_MEMS, "cpuset.mems", "memory nodes")?;
        self.set(context, labels::CPUSET_CPUS, "cpuset.cpus", "CPUs")
    }

    fn set(
        &self,
        context: &ContainerContext,
        label: &str,
        file: &str,
        what: &str,
    ) -> Result<(), IsolatorError> {
        let Some(text) = labels::read(context, label) else { return Ok(()) };
        let wanted: CpuList = text.parse().map_err(|reason| labels::wrong(label, text, reason))?;
        if wanted.is_empty() {
            return Err(labels::wrong(label, text, format!("it names no {what}")));
        }
        let (root, version) = self.cgroups.root(Controller::Cpuset)?;
        let there = match version {
            Version::V1 => root.join(file),
            Version::V2 => root.join(format!("{file}.effective")),
        };
        let there_text = files::read(&there)?;
        let there: CpuList =
            there_text.parse().map_err(|_| CgroupError::Parse { path: there, text: there_text })?;
        let lacking = wanted.beyond(&there);
        if !lacking.is_empty() {
            return Err(labels::wrong(label, text, format!("this agent's {what} are {there}")));
        }
        let (dir, _) = self.cgroups.dir(&context.container_id, Controller::Cpuset)?;
        Ok(files::write(&dir.join(file), wanted)?)
    }
}

impl Isolator for CgroupsCpuset {
    fn name(&self) -> &str {
        "cgroups/cpuset"
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(CgroupsCpuset::prepare(self, context))
    }
}
