//! What may be asked for of maintenance, as Mesos' `maintenance::validation` has it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tepui_api::v1::MachineId;
use tepui_api::v1::machine_info::Mode;
use tepui_api::v1::maintenance::Schedule;

use super::{Machine, Plan};

/// Why a call is refused. Machines are shown as JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::core) enum Invalid {
    #[error("List of machines in the maintenance window is empty")]
    EmptyWindow,
    #[error("Unavailability 'duration' is negative")]
    NegativeDuration,
    #[error("Both 'hostname' and 'ip' for a machine are empty")]
    EmptyMachine,
    #[error("Failed to parse the IP '{0}' of a machine: write it as in 10.0.0.1")]
    Ip(String),
    #[error("Machine '{0}' appears more than once in the schedule")]
    Twice(String),
    #[error("Machine '{0}' is deactivated and cannot be removed from the schedule")]
    Down(String),
    #[error("List of machines is empty")]
    NoMachines,
    #[error("Machine '{0}' is not part of a maintenance schedule")]
    NotScheduled(String),
    #[error("Machine '{0}' is not in DRAINING mode and cannot be brought down")]
    NotDraining(String),
    #[error("Machine '{0}' is not in DOWN mode and cannot be brought up")]
    NotDown(String),
}

impl Invalid {
    /// A machine is not in the mode that it has to be in.
    pub(super) fn mode(id: &MachineId, wanted: Mode) -> Self {
        if wanted == Mode::Down { Self::NotDown(shown(id)) } else { Self::NotDraining(shown(id)) }
    }
}

/// A machine in a sentence.
pub(super) fn shown(id: &MachineId) -> String {
    String::from_utf8_lossy(&tepui_api::codec::encode_json(id)).into_owned()
}

/// Whether a schedule may take the place of the one that stands.
///
/// # Errors
/// With the first thing that is wrong, in Mesos' order.
pub(super) fn schedule(schedule: &Schedule, plan: &Plan) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for window in &schedule.windows {
        if window.machine_ids.is_empty() {
            return Err(Invalid::EmptyWindow);
        }
        if window.unavailability.duration.is_some_and(|duration| duration.nanoseconds < 0) {
            return Err(Invalid::NegativeDuration);
        }
        for id in &window.machine_ids {
            meet(id, &mut seen)?;
        }
    }
    let lost =
        plan.machines.iter().find(|(machine, info)| info.mode() == Mode::Down && !seen.contains(*machine));
    match lost {
        Some((_, info)) => Err(Invalid::Down(shown(&info.id))),
        None => Ok(()),
    }
}

/// Whether these may be taken down or up together.
///
/// # Errors
/// With the first thing that is wrong, in Mesos' order.
pub(super) fn machines(ids: &[MachineId]) -> Result<(), Invalid> {
    if ids.is_empty() {
        return Err(Invalid::NoMachines);
    }
    let mut seen = BTreeSet::new();
    ids.iter().try_for_each(|id| meet(id, &mut seen))
}

fn meet(id: &MachineId, seen: &mut BTreeSet<Machine>) -> Result<(), Invalid> {
    if id.hostname().is_empty() && id.ip().is_empty() {
        return Err(Invalid::EmptyMachine);
    }
    if !id.ip().is_empty() && id.ip().parse::<Ipv4Addr>().is_err() {
        return Err(Invalid::Ip(id.ip().to_owned()));
    }
    if seen.insert(Machine::new(id)) { Ok(()) } else { Err(Invalid::Twice(shown(id))) }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::maintenance::Window;
    use tepui_api::v1::{DurationInfo, MachineInfo, TimeInfo, Unavailability};

    use super::*;

    fn id(hostname: &str, ip: &str) -> MachineId {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        MachineId { hostname: some(hostname), ip: some(ip) }
    }

    fn window(ids: &[MachineId], duration: Option<i64>) -> Window {
        let duration = duration.map(|nanoseconds| DurationInfo { nanoseconds });
        let start = TimeInfo { nanoseconds: 1 };
        Window { machine_ids: ids.to_vec(), unavailability: Unavailability { start, duration } }
    }

    #[test]
    fn schedules() {
        let down = Plan {
            machines: [(
                Machine::new(&id("d", "10.0.0.9")),
                MachineInfo { id: id("d", "10.0.0.9"), mode: Some(Mode::Down.into()), unavailability: None },
            )]
            .into_iter()
            .collect(),
            ..Plan::default()
        };
        let (a, b) = (id("a", "10.0.0.1"), id("b", ""));
        let check = |windows: Vec<Window>, plan: &Plan| schedule(&Schedule { windows }, plan);
        let empty = Plan::default();
        assert_eq!(check(vec![], &empty), Ok(()));
        assert_eq!(check(vec![window(&[a.clone(), b.clone()], Some(0))], &empty), Ok(()));
        assert_eq!(check(vec![window(&[], None)], &empty), Err(Invalid::EmptyWindow));
        assert_eq!(
            check(vec![window(std::slice::from_ref(&a), Some(-1))], &empty),
            Err(Invalid::NegativeDuration)
        );
        assert_eq!(check(vec![window(&[id("", "")], None)], &empty), Err(Invalid::EmptyMachine));
        assert_eq!(check(vec![window(&[id("x", "::1")], None)], &empty), Err(Invalid::Ip("::1".into())));
        let again = MachineId { hostname: Some("A".into()), ..a.clone() };
        let twice = vec![window(std::slice::from_ref(&a), None), window(&[again], None)];
        assert!(matches!(check(twice, &empty), Err(Invalid::Twice(_))));
        assert!(matches!(check(vec![window(&[a], None)], &down), Err(Invalid::Down(_))));
        assert_eq!(check(vec![window(&[id("D", "10.0.0.9")], None)], &down), Ok(()));
    }

    #[test]
    fn lists_of_machines() {
        assert_eq!(machines(&[]), Err(Invalid::NoMachines));
        assert_eq!(machines(&[id("a", ""), id("a", "10.0.0.1")]), Ok(()));
        let error = machines(&[id("a", ""), id("A", "")]).unwrap_err();
        assert_eq!(error.to_string(), r#"Machine '{"hostname":"A"}' appears more than once in the schedule"#);
    }
}
