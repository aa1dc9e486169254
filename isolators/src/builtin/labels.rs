//! Labels by which a task asks for what Mesos has no field for.
//!
//! They are read from the task, or, if it has none of that name, from its executor. A label of this list on an agent without the isolator
//! that heeds it is refused: see [`unheeded`].

use tepui_api::v1;

use crate::isolator::{ContainerContext, IsolatorError};

/// A label, who heeds it, and both in words for a refusal.
struct Label {
    name: &'static str,
    isolator: &'static str,
    words: &'static str,
}

macro_rules! labels {
    ($($constant:ident = $name:literal of $isolator:literal;)*) => {
        $(pub const $constant: &str = $name;)*
        const ALL: &[Label] = &[$(Label {
            name: $name,
            isolator: $isolator,
            words: concat!("the label ", $name, " (isolator ", $isolator, ")"),
        }),*];
    };
}

labels! {
    CPUSET_CPUS = "tepui.cpuset.cpus" of "cgroups/cpuset";
    CPUSET_MEMS = "tepui.cpuset.mems" of "cgroups/cpuset";
    HUGETLB_MAX = "tepui.hugetlb.max" of "cgroups/hugetlb";
    IO_MAX = "tepui.io.max" of "cgroups/blkio";
    IO_WEIGHT = "tepui.io.weight" of "cgroups/blkio";
    NET_PRIO = "tepui.net_prio.ifpriomap" of "cgroups/net_prio";
    PIDS_MAX = "tepui.pids.max" of "cgroups/pids";
}

/// The value of a label of a container.
pub fn read<'a>(context: &'a ContainerContext, name: &str) -> Option<&'a str> {
    let of_task = context.task.as_ref().and_then(|task| task.labels.as_ref());
    let of_executor = context.executor.as_ref().and_then(|executor| executor.labels.as_ref());
    [of_task, of_executor].into_iter().flatten().find_map(|labels| find(labels, name))
}

fn find<'a>(labels: &'a v1::Labels, name: &str) -> Option<&'a str> {
    labels.labels.iter().find(|label| label.key == name).map(|label| label.value())
}

/// The first label of this list that is in `labels` and that none of `isolators` heeds, in words.
pub fn unheeded(labels: &v1::Labels, has: impl Fn(&str) -> bool) -> Option<&'static str> {
    let lost = ALL.iter().find(|label| find(labels, label.name).is_some() && !has(label.isolator));
    lost.map(|label| label.words)
}

/// A label's value is wrong.
pub fn wrong(name: &str, value: &str, reason: impl std::fmt::Display) -> IsolatorError {
    IsolatorError::Refused(format!("the label {name} cannot be '{value}': {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::tests::context;

    fn labels(pairs: &[(&str, &str)]) -> v1::Labels {
        let label =
            |(key, value): &(&str, &str)| v1::Label { key: (*key).into(), value: Some((*value).into()) };
        v1::Labels { labels: pairs.iter().map(label).collect() }
    }

    #[test]
    fn the_task_comes_before_its_executor() {
        let mut context = context(None);
        let of_executor = labels(&[(PIDS_MAX, "1"), (IO_WEIGHT, "2")]);
        context.executor = Some(v1::ExecutorInfo { labels: Some(of_executor), ..Default::default() });
        let of_task = labels(&[("other", "x"), (PIDS_MAX, "3")]);
        context.task = Some(v1::TaskInfo { labels: Some(of_task), ..Default::default() });
        assert_eq!((read(&context, PIDS_MAX), read(&context, IO_WEIGHT)), (Some("3"), Some("2")));
        assert_eq!(read(&context, IO_MAX), None);
    }

    #[test]
    fn labels_that_nobody_heeds_are_named() {
        let given = labels(&[("other", "x"), (IO_MAX, "y")]);
        assert_eq!(unheeded(&given, |_| false), Some("the label tepui.io.max (isolator cgroups/blkio)"));
        assert_eq!(unheeded(&given, |name| name == "cgroups/blkio"), None);
        assert_eq!(unheeded(&labels(&[("other", "x")]), |_| false), None);
    }
}
