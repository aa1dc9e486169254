//! `posix/rlimits`: the resource limits of a container's processes (`ContainerInfo.rlimit_info`).
//!
//! Drives `setrlimit(2)` through the runtime spec; the shim puts them in force right before the program starts. Each limit has both
//! a soft and a hard value, or neither, which lifts it. The last one of a type counts. A container without any has the agent's.
//! Rules: `getrlimit(2)`; Mesos' `docs/isolators/posix-rlimits.md`.

use std::sync::Arc;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use tepui_api::v1::r_limit_info::RLimit;
use tepui_api::v1::r_limit_info::r_limit::Type;

use super::process;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

struct PosixRlimits;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(PosixRlimits))
}

impl Isolator for PosixRlimits {
    fn name(&self) -> &str {
        "posix/rlimits"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(prepare(context, contribution))
    }
}

fn prepare(context: &ContainerContext, contribution: &mut Contribution) -> Result<(), IsolatorError> {
    let Some(info) = context.container.as_ref().and_then(|container| container.rlimit_info.as_ref()) else {
        return Ok(());
    };
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for asked in &info.rlimits {
        let limit = limit(asked)?;
        limits.retain(|other| other.typ() != limit.typ());
        limits.push(limit);
    }
    process(&mut contribution.spec)?.set_rlimits(Some(limits));
    Ok(())
}

/// Without a value, the kernel's infinity.
const INFINITY: u64 = u64::MAX;

fn limit(asked: &RLimit) -> Result<PosixRlimit, IsolatorError> {
    let name = asked.r#type();
    let refused =
        |why: &str| IsolatorError::Refused(format!("the resource limit {}: {why}", name.as_str_name()));
    let kind = kind(name).ok_or_else(|| refused("no type is given, or none that is known"))?;
    let (soft, hard) = match (asked.soft, asked.hard) {
        (Some(soft), Some(hard)) if soft > hard => {
            return Err(refused(&format!("the soft limit {soft} is above the hard limit {hard}")));
        }
        (Some(soft), Some(hard)) => (soft, hard),
        (None, None) => (INFINITY, INFINITY),
        _ => return Err(refused("give both 'soft' and 'hard', or neither of them to lift it")),
    };
    PosixRlimitBuilder::default()
        .typ(kind)
        .soft(soft)
        .hard(hard)
        .build()
        .map_err(|error| IsolatorError::Failed(error.to_string()))
}

fn kind(name: Type) -> Option<PosixRlimitType> {
    Some(match name {
        Type::Unknown => return None,
        Type::RlmtAs => PosixRlimitType::RlimitAs,
        Type::RlmtCore => PosixRlimitType::RlimitCore,
        Type::RlmtCpu => PosixRlimitType::RlimitCpu,
        Type::RlmtData => PosixRlimitType::RlimitData,
        Type::RlmtFsize => PosixRlimitType::RlimitFsize,
        Type::RlmtLocks => PosixRlimitType::RlimitLocks,
        Type::RlmtMemlock => PosixRlimitType::RlimitMemlock,
        Type::RlmtMsgqueue => PosixRlimitType::RlimitMsgqueue,
        Type::RlmtNice => PosixRlimitType::RlimitNice,
        Type::RlmtNofile => PosixRlimitType::RlimitNofile,
        Type::RlmtNproc => PosixRlimitType::RlimitNproc,
        Type::RlmtRss => PosixRlimitType::RlimitRss,
        Type::RlmtRtprio => PosixRlimitType::RlimitRtprio,
        Type::RlmtRttime => PosixRlimitType::RlimitRttime,
        Type::RlmtSigpending => PosixRlimitType::RlimitSigpending,
        Type::RlmtStack => PosixRlimitType::RlimitStack,
    })
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::{ContainerInfo, RLimitInfo};

    use super::super::tests::{context, empty_spec};
    use super::*;

    fn prepared(rlimits: Vec<RLimit>) -> Result<Vec<(String, u64, u64)>, IsolatorError> {
        let info = ContainerInfo { rlimit_info: Some(RLimitInfo { rlimits }), ..ContainerInfo::default() };
        let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
        prepare(&context(Some(info)), &mut contribution)?;
        let process = contribution.spec.process().clone().unwrap();
        assert_eq!(process.capabilities(), &None);
        let limits = process.rlimits().clone().unwrap();
        Ok(limits.iter().map(|limit| (limit.typ().to_string(), limit.soft(), limit.hard())).collect())
    }

    fn rlimit(name: Type, soft: Option<u64>, hard: Option<u64>) -> RLimit {
        RLimit { r#type: Some(name.into()), soft, hard }
    }

    #[test]
    fn every_type_of_the_wire_has_the_kernel_s_name() {
        for number in 1..=16 {
            let name = Type::try_from(number).unwrap();
            let got = prepared(vec![rlimit(name, Some(1), Some(2))]).unwrap();
            assert_eq!(got, [(name.as_str_name().replace("RLMT_", "RLIMIT_"), 1, 2)]);
        }
        assert!(Type::try_from(17).is_err(), "a new type needs a name");
    }

    #[test]
    fn neither_value_lifts_the_limit_and_the_last_counts() {
        let limits = vec![rlimit(Type::RlmtCore, Some(0), Some(0)), rlimit(Type::RlmtCore, None, None)];
        assert_eq!(prepared(limits).unwrap(), [("RLIMIT_CORE".to_owned(), u64::MAX, u64::MAX)]);
    }

    #[test]
    fn what_is_half_or_upside_down_is_refused() {
        for (limit, words) in [
            (rlimit(Type::RlmtNofile, Some(1), None), "RLMT_NOFILE: give both"),
            (rlimit(Type::RlmtNofile, None, Some(1)), "give both"),
            (rlimit(Type::RlmtCpu, Some(2), Some(1)), "RLMT_CPU: the soft limit 2 is above the hard limit 1"),
            (RLimit { r#type: None, soft: Some(1), hard: Some(1) }, "no type"),
            (RLimit { r#type: Some(99), soft: Some(1), hard: Some(1) }, "no type"),
        ] {
            let error = prepared(vec![limit]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn without_limits_nothing_changes() {
        let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
        let before = contribution.spec.clone();
        prepare(&context(None), &mut contribution).unwrap();
        assert_eq!(contribution.spec, before);
    }
}
