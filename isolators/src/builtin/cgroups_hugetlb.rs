//! `cgroups/hugetlb`: how much memory a container may have in huge pages.
//!
//! Mesos' isolator makes the cgroup and has no limit to put into it; here the label `tepui.hugetlb.max` does, for each size of page
//! with its own pool: `2MB=64MB;1GB=0B`, or `max` for the amount. Sizes that are not named stay without a limit.
//!
//! | | v1 | v2 |
//! | --- | --- | --- |
//! | pages in use; beyond it a touched page gives SIGBUS | `hugetlb.<size>.limit_in_bytes` | `hugetlb.<size>.max` |
//! | pages promised; beyond it mmap gives ENOMEM (Linux 5.7) | `hugetlb.<size>.rsvd.limit_in_bytes` | `hugetlb.<size>.rsvd.max` |
//!
//! Both are set where the kernel has both, so that a program hears of it where it can do something about it.
//! Rules: the kernel's `admin-guide/cgroup-v1/hugetlb.rst`, `admin-guide/cgroup-v2.rst` ("HugeTLB").

use std::sync::Arc;

use tepui_api::units::Bytes;

use super::labels;
use crate::catalogue::Parts;
use crate::cgroups::{Cgroups, Controller, Version, files};
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

struct CgroupsHugetlb {
    cgroups: Arc<Cgroups>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(CgroupsHugetlb { cgroups: parts.cgroups()? }))
}

/// Bytes by size of page.
fn limits(text: &str) -> Result<Vec<(&str, u64)>, String> {
    let mut found = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (size, amount) = part
            .split_once('=')
            .ok_or_else(|| format!("'{part}' is not a size of page and an amount, such as 2MB=64MB"))?;
        // The size becomes part of a file's name.
        if size.is_empty() || !size.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(format!("'{size}' is not a size of page, such as 2MB"));
        }
        if amount != "max" {
            let amount: Bytes = amount.parse().map_err(|error| format!("{error}"))?;
            found.push((size, amount.0));
        }
    }
    Ok(found)
}

impl CgroupsHugetlb {
    fn prepare(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        let label = labels::HUGETLB_MAX;
        let Some(text) = labels::read(context, label) else { return Ok(()) };
        let limits = limits(text).map_err(|reason| labels::wrong(label, text, reason))?;
        let (dir, version) = self.cgroups.dir(&context.container_id, Controller::Hugetlb)?;
        let last = match version {
            Version::V1 => "limit_in_bytes",
            Version::V2 => "max",
        };
        for (size, amount) in limits {
            let file = dir.join(format!("hugetlb.{size}.{last}"));
            if !file.exists() {
                return Err(labels::wrong(label, text, format!("this agent has no huge pages of {size}")));
            }
            files::write(&file, amount)?;
            let reserved = dir.join(format!("hugetlb.{size}.rsvd.{last}"));
            if reserved.exists() {
                files::write(&reserved, amount)?;
            }
        }
        Ok(())
    }
}

impl Isolator for CgroupsHugetlb {
    fn name(&self) -> &str {
        "cgroups/hugetlb"
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(CgroupsHugetlb::prepare(self, context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_amounts_by_size() {
        assert_eq!(limits("2MB=64MB;1GB=0B").unwrap(), [("2MB", 64 << 20), ("1GB", 0)]);
        assert_eq!(limits("2MB=max; ").unwrap(), []);
        for text in ["2MB", "2MB=", "2MB=many", "../x=1MB", "=1MB", "2MB:1MB"] {
            assert!(limits(text).is_err(), "{text}");
        }
    }
}
