//! From the words of [`crate::Isolator`] to those of the protocol, and back.

use std::path::Path;

use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{ContainerStatus, ResourceStatistics};

use super::proto;
use crate::isolator::{ContainerContext, ContainerId, Limitation, Recovered};

/// What a plugin is told of a container.
pub(super) fn container(context: &ContainerContext, sandbox_directory: &Path) -> proto::Container {
    proto::Container {
        container_id: Some(context.container_id.clone()),
        executor: context.executor.clone(),
        task: context.task.clone(),
        container: context.container.clone(),
        requests: context.requests.to_wire(),
        limits: context.limits.clone(),
        sandbox: context.sandbox.to_string_lossy().into_owned(),
        sandbox_in_container: sandbox(context, sandbox_directory).to_string_lossy().into_owned(),
        user: context.user.clone(),
        has_rootfs: context.has_rootfs,
    }
}

/// The sandbox as the container sees it.
pub(super) fn sandbox<'a>(context: &'a ContainerContext, sandbox_directory: &'a Path) -> &'a Path {
    if context.has_rootfs { sandbox_directory } else { &context.sandbox }
}

pub(super) fn running(one: &Recovered, sandbox_directory: &Path) -> proto::recover_request::Running {
    let container = container(&one.context, sandbox_directory);
    proto::recover_request::Running { container: Some(container), pid: one.pid }
}

/// A plugin's limitation.
///
/// # Errors
/// When it names no container or a reason that limitations do not have; in words.
pub(super) fn limitation(limitation: proto::Limitation) -> Result<Limitation, String> {
    let id: ContainerId = limitation.container_id.ok_or("a limitation without container_id")?;
    let reason = match limitation.reason.as_str() {
        "" => Reason::ContainerLimitation,
        name => Reason::from_str_name(name)
            .filter(|reason| {
                use Reason::{ContainerLimitation, ContainerLimitationDisk, ContainerLimitationMemory};
                matches!(reason, ContainerLimitation | ContainerLimitationDisk | ContainerLimitationMemory)
            })
            .ok_or_else(|| {
                format!("a limitation with the reason '{name}', which is not one of a limitation")
            })?,
    };
    Ok(Limitation { container_id: id, resources: limitation.resources, message: limitation.message, reason })
}

/// Adds what is not there yet: what the agent knows by itself is not overwritten.
pub(super) fn add_statistics(to: &mut ResourceStatistics, more: ResourceStatistics) {
    add(to, more);
}

/// The same of a status.
pub(super) fn add_status(to: &mut ContainerStatus, more: ContainerStatus) {
    add(to, more);
}

fn add<M: prost::Message + Default>(to: &mut M, mut more: M) {
    let known = std::mem::take(to);
    // Merging lets the later value of a field win; what we have just encoded can be decoded.
    match more.merge(known.encode_to_vec().as_slice()) {
        Ok(()) => *to = more,
        Err(_) => *to = known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_not_overwritten() {
        let mut known = ResourceStatistics { timestamp: 5.0, mem_rss_bytes: Some(7), ..Default::default() };
        let more = ResourceStatistics {
            timestamp: 9.0,
            mem_rss_bytes: Some(8),
            cpus_limit: Some(0.5),
            ..Default::default()
        };
        add_statistics(&mut known, more);
        assert_eq!((known.timestamp, known.mem_rss_bytes, known.cpus_limit), (5.0, Some(7), Some(0.5)));
    }

    #[test]
    fn limitations_have_a_container_and_a_reason_of_limitations() {
        let id = Some(ContainerId::new("a"));
        for (reason, expected) in [
            ("", Some(Reason::ContainerLimitation)),
            ("REASON_CONTAINER_LIMITATION_DISK", Some(Reason::ContainerLimitationDisk)),
            ("REASON_AGENT_REMOVED", None),
            ("nonsense", None),
        ] {
            let made =
                proto::Limitation { container_id: id.clone(), reason: reason.into(), ..Default::default() };
            assert_eq!(limitation(made).ok().map(|made| made.reason), expected, "{reason}");
        }
        assert!(limitation(proto::Limitation::default()).is_err());
    }
}
