//! From what a runtime spec says of a program's privileges to what the shim puts in force.

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Spec};
use tepui_isolators::seccomp;
use tepui_shim::{CapabilitySets, Filter, INIT_CALLS, Privileges};

use crate::containerizer::error::PrepareError;

/// Takes out of the spec what `libcontainer` is not to see to, as the shim does.
pub(super) fn take(spec: &mut Spec) -> Result<Privileges, PrepareError> {
    let mut privileges = Privileges::default();
    if let Some(process) = spec.process_mut() {
        privileges.capabilities = process.capabilities().as_ref().map(sets).transpose()?;
        privileges.no_new_privileges = process.no_new_privileges().unwrap_or_default();
        privileges.rlimits = process.rlimits().clone().unwrap_or_default();
        process.set_capabilities(None).set_no_new_privileges(None).set_rlimits(None);
    }
    if let Some(linux) = spec.linux_mut()
        && let Some(rules) = linux.seccomp().clone()
    {
        privileges.filter = Some(Filter {
            program: seccomp::compile(&rules, &[])?,
            init: seccomp::compile(&rules, &INIT_CALLS)?,
        });
        linux.set_seccomp(None);
    }
    Ok(privileges)
}

fn sets(given: &LinuxCapabilities) -> Result<CapabilitySets, PrepareError> {
    let bits = |set: &Option<Capabilities>| set.as_ref().map(bits).transpose();
    Ok(CapabilitySets {
        bounding: bits(given.bounding())?.unwrap_or_default(),
        effective: bits(given.effective())?,
        permitted: bits(given.permitted())?,
        inheritable: bits(given.inheritable())?.unwrap_or_default(),
        ambient: bits(given.ambient())?.unwrap_or_default(),
    })
}

/// A bit for each, by the kernel's number.
fn bits(set: &Capabilities) -> Result<u64, PrepareError> {
    set.iter().try_fold(0, |bits, capability| {
        let name = format!("CAP_{capability}");
        let known: caps::Capability = name
            .parse()
            .map_err(|_| PrepareError::Spec(format!("the number of the capability {name} is not known")))?;
        Ok(bits | known.bitmask())
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capability, LinuxSeccomp, Process};

    use super::*;

    #[test]
    fn all_is_taken_and_nothing_left_for_libcontainer() {
        let mut process = Process::default();
        let some = |list: &[Capability]| Some(list.iter().copied().collect::<Capabilities>());
        let mut given = LinuxCapabilities::default();
        given
            .set_bounding(some(&[Capability::Chown, Capability::CheckpointRestore]))
            .set_effective(some(&[Capability::Chown]))
            .set_permitted(None)
            .set_inheritable(some(&[Capability::NetRaw]))
            .set_ambient(some(&[]));
        process.set_capabilities(Some(given)).set_no_new_privileges(Some(true));
        let limits = process.rlimits().clone().unwrap();
        assert!(!limits.is_empty(), "the default has one");
        let mut spec = Spec::default();
        spec.set_process(Some(process));
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(Some(LinuxSeccomp::default()));
        }

        let taken = take(&mut spec).unwrap();
        let sets = CapabilitySets {
            bounding: 1 | 1 << 40,
            effective: Some(1),
            permitted: None,
            inheritable: 1 << 13,
            ambient: 0,
        };
        assert_eq!(taken.capabilities, Some(sets));
        assert!(taken.no_new_privileges && taken.rlimits == limits && taken.filter.is_some());
        let process = spec.process().clone().unwrap();
        assert_eq!((process.capabilities(), process.rlimits()), (&None, &None));
        assert_eq!(process.no_new_privileges(), None);
        assert_eq!(spec.linux().as_ref().unwrap().seccomp(), &None);
        assert_eq!(take(&mut spec).unwrap(), Privileges::default());
    }
}
