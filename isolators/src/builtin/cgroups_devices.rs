//! `cgroups/devices`: which devices a container may open, and make files for.
//!
//! Every container may do with devices what Mesos' list says, and what `--allowed_devices` adds; nothing else. The list is of devices that
//! no program harms another with; files may be made for any device, which alone gives no access to it. How the kernel is told is in
//! [`crate::cgroups::devices`]. Rules: Mesos' `docs/isolators/cgroups-devices.md`.

use std::sync::Arc;

use super::allowed_devices::AllowedDevice;
use crate::catalogue::Parts;
use crate::cgroups::devices::{Filter, Rule};
use crate::cgroups::{Cgroups, Controller};
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered, done,
};

/// What every container may use.
const DEFAULT: [(&str, &str); 14] = [
    ("c *:* m", "a file for any character device"),
    ("b *:* m", "a file for any block device"),
    ("c 5:1 rwm", "/dev/console"),
    ("c 4:0 rwm", "/dev/tty0"),
    ("c 4:1 rwm", "/dev/tty1"),
    ("c 136:* rwm", "/dev/pts/*"),
    ("c 5:2 rwm", "/dev/ptmx"),
    ("c 10:200 rwm", "/dev/net/tun"),
    ("c 1:3 rwm", "/dev/null"),
    ("c 1:5 rwm", "/dev/zero"),
    ("c 1:7 rwm", "/dev/full"),
    ("c 5:0 rwm", "/dev/tty"),
    ("c 1:9 rwm", "/dev/urandom"),
    ("c 1:8 rwm", "/dev/random"),
];

struct CgroupsDevices {
    cgroups: Arc<Cgroups>,
    filter: Filter,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let (cgroups, rules) = (parts.cgroups()?, rules(parts)?);
    let (_, version) = cgroups.root(Controller::Devices)?;
    Ok(Arc::new(CgroupsDevices { filter: Filter::new(&rules, version)?, cgroups }))
}

/// What every container may use.
pub(super) fn rules(parts: &Parts) -> Result<Vec<Rule>, MakeError> {
    let mut rules = Vec::with_capacity(DEFAULT.len());
    for (rule, _) in DEFAULT {
        rules.push(rule.parse::<Rule>().map_err(|error| MakeError::Host(error.to_string()))?);
    }
    rules.extend(parts.settings.cgroups.allowed_devices.iter().map(AllowedDevice::rule));
    Ok(rules)
}

impl CgroupsDevices {
    fn prepare(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let (dir, _) = self.cgroups.dir(id, Controller::Devices)?;
        Ok(self.filter.apply(&dir)?)
    }

    /// A container keeps what it was started with. Only one that an agent without this isolator has made gets a filter, where it has a cgroup.
    fn recover_one(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let (dir, _) = self.cgroups.dir(id, Controller::Devices)?;
        if !dir.is_dir() {
            tracing::warn!(container = %id, cgroup = %dir.display(), "The devices of this container are not limited: it has no such cgroup.");
            return Ok(());
        }
        if !self.filter.is_applied(&dir)? {
            tracing::info!(container = %id, "The devices of a running container are limited from now on.");
            self.filter.apply(&dir)?;
        }
        Ok(())
    }
}

impl Isolator for CgroupsDevices {
    fn name(&self) -> &str {
        "cgroups/devices"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(known.iter().try_for_each(|one| self.recover_one(&one.context.container_id)))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(CgroupsDevices::prepare(self, &context.container_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_rules() {
        for (rule, what) in DEFAULT {
            assert_eq!(rule.parse::<Rule>().unwrap().to_string(), rule, "{what}");
        }
    }
}
