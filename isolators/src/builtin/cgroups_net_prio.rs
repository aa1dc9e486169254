//! `cgroups/net_prio`: the priority of a container's packets, by network interface.
//!
//! Mesos' isolator makes the cgroup and leaves the priorities to operators; here the label `tepui.net_prio.ifpriomap` may set them:
//! `eth0=5;lo=1`. Each is written as a line of `net_prio.ifpriomap`. The kernel has this in v1 only, for sockets made after that.
//!
//! Rules: the kernel's `admin-guide/cgroup-v1/net_prio.rst`.

use std::sync::Arc;

use super::labels;
use crate::catalogue::Parts;
use crate::cgroups::{CgroupError, Cgroups, Controller, files};
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

struct CgroupsNetPrio {
    cgroups: Arc<Cgroups>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(CgroupsNetPrio { cgroups: parts.cgroups()? }))
}

/// Priorities by name of interface.
fn priorities(text: &str) -> Result<Vec<(&str, u32)>, String> {
    let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    let read = |part| {
        priority(part)
            .ok_or_else(|| format!("'{part}' is not an interface and a priority from 0 on, such as eth0=5"))
    };
    parts.map(read).collect()
}

fn priority(part: &str) -> Option<(&str, u32)> {
    let (interface, priority) = part.split_once('=')?;
    let named = !interface.is_empty() && !interface.contains(char::is_whitespace);
    named.then_some((interface, priority.parse().ok()?))
}

impl CgroupsNetPrio {
    fn prepare(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        let label = labels::NET_PRIO;
        let Some(text) = labels::read(context, label) else { return Ok(()) };
        let priorities = priorities(text).map_err(|reason| labels::wrong(label, text, reason))?;
        let (dir, _) = self.cgroups.dir(&context.container_id, Controller::NetPrio)?;
        let file = dir.join("net_prio.ifpriomap");
        for (interface, priority) in priorities {
            match files::write(&file, format!("{interface} {priority}")) {
                Err(CgroupError::Write { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                    return Err(labels::wrong(
                        label,
                        text,
                        format!("this agent has no network interface '{interface}'"),
                    ));
                }
                written => written?,
            }
        }
        Ok(())
    }
}

impl Isolator for CgroupsNetPrio {
    fn name(&self) -> &str {
        "cgroups/net_prio"
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(CgroupsNetPrio::prepare(self, context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_numbers_by_interface() {
        assert_eq!(priorities("eth0=5; lo=0").unwrap(), [("eth0", 5), ("lo", 0)]);
        for text in ["eth0", "eth0=", "=5", "eth0=-1", "a b=1"] {
            assert!(priorities(text).is_err(), "{text}");
        }
    }
}
