//! `cgroups/blkio`: how much a container reads from and writes to block devices, and limits of it.
//!
//! Figures are those of Mesos, in `ResourceStatistics.blkio_statistics` (`figures`). Mesos has no limits; here two labels set them
//! (`limits`): `tepui.io.weight`, the share of a busy device, and `tepui.io.max`, bytes and operations a second.
//!
//! | | v1 (`blkio`) | v2 (`io`) |
//! | --- | --- | --- |
//! | figures | `blkio.throttle.io_serviced`, `blkio.throttle.io_service_bytes`; those of CFQ before Linux 5.0 | `io.stat` |
//! | weight | `blkio.bfq.weight`, or `blkio.weight` with CFQ | `io.weight`, or `io.bfq.weight` |
//! | limits | `blkio.throttle.{read,write}_{bps,iops}_device` | `io.max` |
//!
//! On v1 only direct and read I/O is the container's; what the page cache writes back later is nobody's (`cgroup-v2.rst`, "Writeback").
//!
//! Rules: the kernel's `admin-guide/cgroup-v1/blkio-controller.rst`, `admin-guide/cgroup-v2.rst` ("IO"), `block/bfq-iosched.rst`; Mesos'
//! `docs/isolators/cgroups-blkio.md`.

mod figures;
mod limits;

use std::sync::Arc;

use tepui_api::v1::ResourceStatistics;

use crate::catalogue::Parts;
use crate::cgroups::{Cgroups, Controller};
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, done};

struct CgroupsBlkio {
    cgroups: Arc<Cgroups>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(CgroupsBlkio { cgroups: parts.cgroups()? }))
}

impl CgroupsBlkio {
    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), IsolatorError> {
        let (dir, version) = self.cgroups.dir(id, Controller::Blkio)?;
        statistics.blkio_statistics = Some(figures::read_all(&dir, version)?);
        Ok(())
    }
}

impl Isolator for CgroupsBlkio {
    fn name(&self) -> &str {
        "cgroups/blkio"
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        let place = self.cgroups.dir(&context.container_id, Controller::Blkio);
        done(
            place.map_err(IsolatorError::from).and_then(|(dir, version)| limits::set(context, &dir, version)),
        )
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        done(self.fill(id, statistics))
    }
}
