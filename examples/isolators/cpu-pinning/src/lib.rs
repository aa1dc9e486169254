//! The isolator `cpu-pinning`: tasks with CPU cores of their own, or on one NUMA node.
//!
//! A task asks for it by the label `tepui.cpuset`:
//!
//! | value | the task runs on |
//! | --- | --- |
//! | `exclusive:2` | two cores that no other task of this agent has; all of one NUMA node, if it has so many |
//! | `numa:0` | the cores of node 0 that are nobody's own, with memory of that node |
//! | no label | all cores that are nobody's own |
//!
//! It works by the cgroup controller `cpuset`, v1 and v2: each container has a cgroup there, and when somebody gets cores of their own, the others'
//! cgroups lose them, while they run. One core always stays for those without any of their own. What was given is read back from the cgroups
//! when the agent starts anew.

mod cores;
mod label;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tepui_isolators::cgroups::{Cgroups, Controller, files};
use tepui_isolators::{
    Answer, ContainerContext, ContainerId, Contribution, Host, Isolator, IsolatorError, Recovered, done,
};

use cores::{CpuSet, Machine, MachineError, Pins};
use label::Wish;

/// Pins containers to cores.
pub struct CpuPinning {
    cgroups: std::sync::Arc<Cgroups>,
    pins: Mutex<Pins>,
}

/// Why the isolator cannot work here.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel's part is missing.
    #[error("the host has no cgroups: mount them, with the controller cpuset")]
    NoCgroups,
    /// The controller is.
    #[error(transparent)]
    Cgroup(#[from] tepui_isolators::cgroups::CgroupError),
    /// The cores cannot be told.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl CpuPinning {
    /// On this agent's cgroups.
    ///
    /// # Errors
    /// When there is no controller `cpuset`, or the kernel does not tell which cores there are.
    pub fn new(host: &Host) -> Result<Self, SetupError> {
        let cgroups = host.cgroups.clone().ok_or(SetupError::NoCgroups)?;
        cgroups.root(Controller::Cpuset)?;
        Ok(CpuPinning { cgroups, pins: Mutex::new(Pins::new(Machine::read()?)) })
    }

    fn take_over(&self, known: &[Recovered]) -> Result<(), IsolatorError> {
        let mut pins = self.pins();
        for Recovered { context, .. } in known {
            let id = &context.container_id;
            let file = self.dir(id)?.join("cpuset.cpus");
            // One that was started without this isolator has no cgroup there, and stays where it is.
            let Some(text) = files::read_if_there(&file)? else { continue };
            let cores = CpuSet::parse(&text).map_err(|error| IsolatorError::Failed(error.to_string()))?;
            pins.restore(id, Wish::of(context)?, cores);
        }
        Ok(())
    }

    fn give(&self, context: &ContainerContext, contribution: &mut Contribution) -> Result<(), IsolatorError> {
        let id = &context.container_id;
        let wish = Wish::of(context)?;
        let mut pins = self.pins();
        pins.give(id, wish).map_err(|error| IsolatorError::Refused(error.to_string()))?;
        self.cgroups.join(id, Controller::Cpuset, contribution)?;
        if let Wish::Node(node) = wish {
            files::write(&self.dir(id)?.join("cpuset.mems"), node)?;
        }
        if let Wish::Exclusive(_) = wish {
            tracing::info!(container = %id, cores = %pins.of(id), "A container has cores of its own.");
        }
        // First the others': no core is ever in two hands.
        self.write(&pins, pins.others(id))?;
        self.write(&pins, [id])
    }

    fn take_back(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let mut pins = self.pins();
        pins.remove(id);
        self.write(&pins, pins.others(id))
    }

    /// Tells the kernel which cores these containers have now.
    fn write<'a>(
        &self,
        pins: &Pins,
        ids: impl IntoIterator<Item = &'a ContainerId>,
    ) -> Result<(), IsolatorError> {
        for id in ids {
            let file = self.dir(id)?.join("cpuset.cpus");
            // One that is being removed has none any more.
            if file.exists() {
                files::write(&file, pins.of(id))?;
            }
        }
        Ok(())
    }

    fn dir(&self, id: &ContainerId) -> Result<PathBuf, IsolatorError> {
        Ok(self.cgroups.dir(id, Controller::Cpuset)?.0)
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Isolator for CpuPinning {
    fn name(&self) -> &str {
        "cpu-pinning"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(self.take_over(known))
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(self.give(context, contribution))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        done(self.take_back(id))
    }
}
