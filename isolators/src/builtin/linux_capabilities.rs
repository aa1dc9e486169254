//! `linux/capabilities`: which of root's powers a container's programs have, and which they can ever get.
//!
//! Drives the capability sets through the runtime spec. What a container asks for, then the operator's flags:
//!
//! | set | from, the first that is there | without any |
//! | --- | --- | --- |
//! | effective | `effective_capabilities` or the older `capability_info`; `--effective_capabilities` | what the user has |
//! | bounding | `bounding_capabilities`; `--bounding_capabilities`; the effective set | all that the agent has |
//!
//! What a container asks for as bounding must be within `--bounding_capabilities`, and the effective set within the bounding one, else the
//! launch is refused. The effective set also becomes the permitted and the ambient one, so that a user other than root has it too; the
//! bounding set becomes the inheritable one. An empty list drops all.
//!
//! The kernel gives root, when it executes a file, all of its bounding and inheritable set: for a program that runs as root it is
//! the bounding set that counts. Rules: `capabilities(7)`; Mesos' `docs/isolators/linux-capabilities.md`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use tepui_api::v1::CapabilityInfo;
use tepui_api::v1::capability_info::Capability as Wire;

use super::process;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

/// The flags of `linux/capabilities`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CapabilitiesSettings {
    /// `--effective_capabilities`: what containers have that ask for nothing else.
    pub effective: Option<CapabilityInfo>,
    /// `--bounding_capabilities`: the most that a container may have.
    pub bounding: Option<CapabilityInfo>,
}

struct LinuxCapabilitiesIsolator {
    effective: Option<Set>,
    bounding: Option<Set>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(MakeError::Host("only root can set the capabilities of containers".to_owned()));
    }
    let settings = &parts.settings.capabilities;
    Ok(Arc::new(LinuxCapabilitiesIsolator::new(settings).map_err(MakeError::Setting)?))
}

impl LinuxCapabilitiesIsolator {
    fn new(settings: &CapabilitiesSettings) -> Result<Self, String> {
        let read = |info: &Option<CapabilityInfo>, flag: &str| {
            info.as_ref().map(Set::read).transpose().map_err(|error| format!("--{flag} {error}"))
        };
        let effective = read(&settings.effective, "effective_capabilities")?;
        let bounding = read(&settings.bounding, "bounding_capabilities")?;
        if let (Some(effective), Some(bounding)) = (&effective, &bounding)
            && !effective.is_within(bounding)
        {
            return Err(format!(
                "--effective_capabilities ({effective}) must be among --bounding_capabilities ({bounding})"
            ));
        }
        Ok(Self { effective, bounding })
    }

    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        let linux = context.container.as_ref().and_then(|container| container.linux_info.as_ref());
        let older = linux.and_then(|linux| linux.capability_info.as_ref());
        let newer = linux.and_then(|linux| linux.effective_capabilities.as_ref());
        if older.is_some() && newer.is_some() {
            return Err(IsolatorError::Refused(
                "only one of 'capability_info' and 'effective_capabilities' may be given".to_owned(),
            ));
        }
        let read = |info: Option<&CapabilityInfo>, field: &str| {
            info.map(Set::read)
                .transpose()
                .map_err(|error| IsolatorError::Refused(format!("'{field}' {error}")))
        };
        let effective = read(newer.or(older), "effective_capabilities")?.or_else(|| self.effective.clone());
        let asked =
            read(linux.and_then(|linux| linux.bounding_capabilities.as_ref()), "bounding_capabilities")?;
        if let (Some(asked), Some(allowed)) = (&asked, &self.bounding)
            && !asked.is_within(allowed)
        {
            return Err(beyond("bounding", asked, allowed));
        }
        let Some(bounding) = asked.or_else(|| self.bounding.clone()).or_else(|| effective.clone()) else {
            return Ok(());
        };
        if let Some(effective) = &effective
            && !effective.is_within(&bounding)
        {
            return Err(beyond("effective", effective, &bounding));
        }
        let mut sets = LinuxCapabilities::default();
        let has = effective.as_ref().map(Set::to_spec);
        sets.set_effective(has.clone());
        sets.set_permitted(has.clone());
        sets.set_ambient(has);
        sets.set_inheritable(Some(bounding.to_spec()));
        sets.set_bounding(Some(bounding.to_spec()));
        process(&mut contribution.spec)?.set_capabilities(Some(sets));
        Ok(())
    }
}

fn beyond(which: &str, asked: &Set, allowed: &Set) -> IsolatorError {
    IsolatorError::Refused(format!(
        "the container asks for the {which} capabilities {asked}, of which only {allowed} are allowed"
    ))
}

/// The bounding set that `/proc/<pid>/status` tells of.
pub(super) fn bounding_of(status: &str) -> Capabilities {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bits = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    let has = |number: &i32| bits >> number & 1 == 1;
    let wire = (0..64).filter(has).filter_map(|number| Wire::try_from(number + FIRST).ok());
    Set(wire.collect()).to_spec()
}

/// The wire's number of the kernel's first capability.
const FIRST: i32 = 1000;

/// Capabilities in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set(BTreeSet<Wire>);

impl Set {
    fn read(info: &CapabilityInfo) -> Result<Self, String> {
        let known = |number: &i32| match Wire::try_from(*number) {
            Ok(Wire::Unknown) | Err(_) => Err("names a capability that is unknown".to_owned()),
            Ok(capability) => Ok(capability),
        };
        info.capabilities.iter().map(known).collect::<Result<_, _>>().map(Self)
    }

    fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    fn to_spec(&self) -> Capabilities {
        // The names are those of the kernel in both.
        self.0.iter().filter_map(|one| one.as_str_name().parse::<Capability>().ok()).collect()
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|one| one.as_str_name()).collect();
        if names.is_empty() { f.write_str("(none)") } else { f.write_str(&names.join(", ")) }
    }
}

impl Isolator for LinuxCapabilitiesIsolator {
    fn name(&self) -> &str {
        "linux/capabilities"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(LinuxCapabilitiesIsolator::prepare(self, context, contribution))
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::{ContainerInfo, LinuxInfo};

    use super::super::tests::{context, empty_spec};
    use super::*;

    fn info(names: &str) -> CapabilityInfo {
        let capabilities = names.split_whitespace().map(|name| Wire::from_str_name(name).unwrap().into());
        CapabilityInfo { capabilities: capabilities.collect() }
    }

    fn of(names: Option<&str>) -> Option<CapabilityInfo> {
        names.map(info)
    }

    /// The effective and the bounding set, if any are set.
    type Prepared = Result<Option<(Option<Capabilities>, Capabilities)>, String>;

    fn prepared(flags: (Option<&str>, Option<&str>), linux: LinuxInfo) -> Prepared {
        let settings = CapabilitiesSettings { effective: of(flags.0), bounding: of(flags.1) };
        let isolator = LinuxCapabilitiesIsolator::new(&settings)?;
        let info = ContainerInfo { linux_info: Some(linux), ..ContainerInfo::default() };
        let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
        isolator.prepare(&context(Some(info)), &mut contribution).map_err(|error| error.to_string())?;
        let Some(sets) =
            contribution.spec.process().as_ref().and_then(|process| process.capabilities().clone())
        else {
            return Ok(None);
        };
        assert_eq!((sets.permitted(), sets.ambient()), (sets.effective(), sets.effective()));
        assert_eq!(sets.inheritable(), sets.bounding());
        Ok(Some((sets.effective().clone(), sets.bounding().clone().unwrap())))
    }

    fn linux(effective: Option<&str>, bounding: Option<&str>) -> LinuxInfo {
        LinuxInfo {
            effective_capabilities: of(effective),
            bounding_capabilities: of(bounding),
            ..LinuxInfo::default()
        }
    }

    #[test]
    fn tasks_and_flags_combine_as_in_the_table() {
        let set = |names: &str| Set::read(&info(names)).unwrap().to_spec();
        let both = |effective: Option<&str>, bounding: &str| Some((effective.map(set), set(bounding)));
        let cases = [
            ((None, None), (None, None), None),
            ((None, None), (Some("CHOWN"), None), both(Some("CHOWN"), "CHOWN")),
            ((None, None), (Some(""), None), both(Some(""), "")),
            ((None, None), (None, Some("CHOWN KILL")), both(None, "CHOWN KILL")),
            ((None, None), (Some("KILL"), Some("CHOWN KILL")), both(Some("KILL"), "CHOWN KILL")),
            ((Some("KILL"), None), (None, None), both(Some("KILL"), "KILL")),
            ((Some("KILL"), Some("KILL CHOWN")), (None, None), both(Some("KILL"), "KILL CHOWN")),
            ((Some("KILL"), Some("KILL CHOWN")), (Some("CHOWN"), None), both(Some("CHOWN"), "KILL CHOWN")),
            ((Some("KILL"), Some("KILL CHOWN")), (None, Some("KILL")), both(Some("KILL"), "KILL")),
            ((None, Some("KILL")), (None, None), both(None, "KILL")),
            // The operator's default does not bound what a task asks for.
            ((Some("KILL"), None), (Some("CHOWN"), None), both(Some("CHOWN"), "CHOWN")),
        ];
        for (flags, (effective, bounding), expected) in cases {
            assert_eq!(prepared(flags, linux(effective, bounding)), Ok(expected), "{flags:?}");
        }
        let older = LinuxInfo { capability_info: Some(info("CHOWN")), ..LinuxInfo::default() };
        assert_eq!(prepared((None, None), older), Ok(both(Some("CHOWN"), "CHOWN")));
    }

    #[test]
    fn what_is_beyond_the_bounds_is_refused() {
        let refused = |flags, linux| prepared(flags, linux).unwrap_err();
        let text = refused((None, Some("KILL")), linux(Some("CHOWN"), None));
        assert!(text.contains("the effective capabilities CHOWN, of which only KILL are allowed"), "{text}");
        let text = refused((None, Some("KILL")), linux(None, Some("CHOWN KILL")));
        assert!(text.contains("the bounding capabilities CHOWN, KILL"), "{text}");
        refused((None, None), linux(Some("KILL CHOWN"), Some("KILL")));
        // The operator's default is not among what this task lets itself have.
        refused((Some("KILL"), None), linux(None, Some("CHOWN")));
        let both = LinuxInfo { capability_info: Some(info("KILL")), ..linux(Some("KILL"), None) };
        assert!(refused((None, None), both).contains("only one of"));
        let unknown = CapabilityInfo { capabilities: vec![0] };
        let unknown = LinuxInfo { effective_capabilities: Some(unknown), ..LinuxInfo::default() };
        assert!(refused((None, None), unknown).contains("unknown"));
    }

    #[test]
    fn flags_that_contradict_each_other_are_an_error() {
        let error = prepared((Some("CHOWN"), Some("KILL")), LinuxInfo::default()).unwrap_err();
        assert!(error.contains("must be among --bounding_capabilities (KILL)"), "{error}");
    }

    #[test]
    fn every_capability_of_the_wire_has_a_name_in_the_spec() {
        let all: Vec<i32> = (FIRST..=FIRST + 40).collect();
        let set = Set::read(&CapabilityInfo { capabilities: all }).unwrap();
        assert_eq!(set.to_spec().len(), 41);
    }

    #[test]
    fn the_kernel_s_words_are_understood() {
        let got = bounding_of("Name:\tx\nCapEff:\t0000000000000000\nCapBnd:\t0000010000000001\n");
        assert_eq!(got, [Capability::Chown, Capability::CheckpointRestore].into_iter().collect());
        assert!(bounding_of("").is_empty());
    }
}
