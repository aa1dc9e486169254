//! `cgroups/pids`: how many processes and threads a container may have at once.
//!
//! Writes `pids.max`, the same file in v1 and v2. Mesos' isolator makes the cgroup and has no limit to put into it; here the label
//! `tepui.pids.max` does: a number of at least 1, or `max`, the default. At the limit fork(2) and clone(2) fail with EAGAIN; nothing is
//! killed. The container's own first process, and an init before it, count.
//!
//! Rules: the kernel's `admin-guide/cgroup-v1/pids.rst`, `admin-guide/cgroup-v2.rst` ("PID").

use std::sync::Arc;

use super::labels;
use crate::catalogue::Parts;
use crate::cgroups::{Cgroups, Controller, files};
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

/// The highest that the kernel takes (`PID_MAX_LIMIT`).
const HIGHEST: u32 = 4_194_304;

struct CgroupsPids {
    cgroups: Arc<Cgroups>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(CgroupsPids { cgroups: parts.cgroups()? }))
}

/// The limit of a label; `None` for no limit.
fn limit(text: &str) -> Result<Option<u32>, IsolatorError> {
    match text.trim() {
        "max" => Ok(None),
        number => match number.parse() {
            Ok(number @ 1..=HIGHEST) => Ok(Some(number)),
            _ => {
                let reason = format!("it must be a number of processes between 1 and {HIGHEST}, or 'max'");
                Err(labels::wrong(labels::PIDS_MAX, text, reason))
            }
        },
    }
}

impl CgroupsPids {
    fn prepare(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        let Some(text) = labels::read(context, labels::PIDS_MAX) else { return Ok(()) };
        let Some(limit) = limit(text)? else { return Ok(()) };
        let (dir, _) = self.cgroups.dir(&context.container_id, Controller::Pids)?;
        Ok(files::write(&dir.join("pids.max"), limit)?)
    }
}

impl Isolator for CgroupsPids {
    fn name(&self) -> &str {
        "cgroups/pids"
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(CgroupsPids::prepare(self, context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_none() {
        assert_eq!((limit("64").unwrap(), limit("max").unwrap()), (Some(64), None));
        for text in ["0", "-1", "", "many", "5000000", "1.5"] {
            let error = limit(text).unwrap_err().to_string();
            assert!(error.contains("tepui.pids.max") && error.contains("between 1 and"), "{error}");
        }
    }
}
