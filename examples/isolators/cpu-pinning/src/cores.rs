//! The cores of a machine, and who has which. Knows neither cgroups nor the agent, so that it can be tested without either.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use tepui_isolators::ContainerId;

use crate::label::Wish;

/// A set of cores, as the kernel writes it: `0-2,5`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuSet(BTreeSet<usize>);

/// The cores that containers can have.
#[derive(Debug, Clone)]
pub struct Machine {
    cores: CpuSet,
    /// By the number of the NUMA node.
    nodes: BTreeMap<usize, CpuSet>,
}

/// Which container has which cores.
#[derive(Debug)]
pub struct Pins {
    machine: Machine,
    given: HashMap<ContainerId, Pin>,
}

#[derive(Debug)]
enum Pin {
    Own(CpuSet),
    /// Of one node, or of all.
    Shared(Option<usize>),
}

/// The kernel does not tell which cores there are.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It has something else in it.
    #[error("'{0}' is not a list of cores, such as 0-3,6")]
    Format(String),
}

/// The cores cannot be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCores {
    /// Too few are left.
    #[error(
        "the task asks for {wanted} cores of its own, and {free} are free: {own} of this agent's {all} are other tasks' own, and one stays for the rest"
    )]
    Taken {
        /// What was asked for.
        wanted: usize,
        /// What could be had.
        free: usize,
        /// Whose are gone.
        own: usize,
        /// Of how many.
        all: usize,
    },
    /// There is no such node.
    #[error("the task asks for NUMA node {0}, and this agent has the nodes {1}")]
    NoNode(usize, String),
    /// All of the node's are gone.
    #[error("the task asks for NUMA node {0}, all cores of which are other tasks' own")]
    NodeTaken(usize),
}

impl CpuSet {
    /// # Errors
    /// When the text is not a list of cores.
    pub fn parse(text: &str) -> Result<CpuSet, MachineError> {
        let wrong = || MachineError::Format(text.trim().to_owned());
        let mut cores = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.parse().map_err(|_| wrong())?;
            let last: usize = last.parse().map_err(|_| wrong())?;
            // No machine has more, and a mistake shall not fill the memory.
            if last > 1 << 16 {
                return Err(wrong());
            }
            cores.extend(first..=last);
        }
        Ok(CpuSet(cores))
    }

    fn without(&self, others: &CpuSet) -> CpuSet {
        CpuSet(&self.0 - &others.0)
    }

    fn among(&self, others: &CpuSet) -> CpuSet {
        CpuSet(&self.0 & &others.0)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let cores: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&cores.join(","))
    }
}

impl Machine {
    /// The cores that this process may use, and their NUMA nodes.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn read() -> Result<Machine, MachineError> {
        let status = read(Path::new("/proc/self/status"))?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let cores = CpuSet::parse(allowed.unwrap_or_default())?;
        let mut nodes = BTreeMap::new();
        // A kernel without NUMA has no such directory.
        for entry in fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
            let Some(number) = number else { continue };
            let here = CpuSet::parse(&read(&entry.path().join("cpulist"))?)?.among(&cores);
            if !here.is_empty() {
                nodes.insert(number, here);
            }
        }
        if nodes.is_empty() {
            nodes.insert(0, cores.clone());
        }
        Ok(Machine { cores, nodes })
    }
}

fn read(path: &Path) -> Result<String, MachineError> {
    fs::read_to_string(path).map_err(|source| MachineError::Io { path: path.display().to_string(), source })
}

impl Pins {
    pub fn new(machine: Machine) -> Pins {
        Pins { machine, given: HashMap::new() }
    }

    /// Gives a container what it wants.
    ///
    /// # Errors
    /// When there is not enough; then nothing has changed.
    pub fn give(&mut self, id: &ContainerId, wish: Wish) -> Result<(), NoCores> {
        let pin = match wish {
            Wish::Shared => Pin::Shared(None),
            Wish::Node(node) => {
                let nodes = &self.machine.nodes;
                let known = || nodes.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let cores = nodes.get(&node).ok_or_else(|| NoCores::NoNode(node, known()))?;
                if cores.without(&self.own()).is_empty() {
                    return Err(NoCores::NodeTaken(node));
                }
                Pin::Shared(Some(node))
            }
            Wish::Exclusive(count) => Pin::Own(self.choose(count)?),
        };
        self.given.insert(id.clone(), pin);
        Ok(())
    }

    /// Takes note of what a container was given before.
    pub fn restore(&mut self, id: &ContainerId, wish: Wish, cores: CpuSet) {
        let pin = match wish {
            Wish::Shared => Pin::Shared(None),
            Wish::Node(node) => Pin::Shared(Some(node)),
            Wish::Exclusive(_) => Pin::Own(cores),
        };
        self.given.insert(id.clone(), pin);
    }

    /// A container gives back what it had.
    pub fn remove(&mut self, id: &ContainerId) {
        self.given.remove(id);
    }

    /// The cores that a container runs on.
    pub fn of(&self, id: &ContainerId) -> CpuSet {
        let all = match self.given.get(id) {
            Some(Pin::Own(cores)) => return cores.clone(),
            Some(Pin::Shared(Some(node))) => self.machine.nodes.get(node).unwrap_or(&self.machine.cores),
            Some(Pin::Shared(None)) | None => &self.machine.cores,
        };
        all.without(&self.own())
    }

    /// The containers whose cores change when this one comes or goes.
    pub fn others<'a>(&'a self, id: &'a ContainerId) -> impl Iterator<Item = &'a ContainerId> {
        let shared = self.given.iter().filter(|(_, pin)| matches!(pin, Pin::Shared(_)));
        shared.map(|(other, _)| other).filter(move |other| *other != id)
    }

    /// All cores that are somebody's own.
    fn own(&self) -> CpuSet {
        let own = self.given.values().filter_map(|pin| match pin {
            Pin::Own(cores) => Some(&cores.0),
            Pin::Shared(_) => None,
        });
        CpuSet(own.flatten().copied().collect())
    }

    /// Free cores: of one node, if one has enough. Leaves one to each node that somebody was promised, and one in any case.
    fn choose(&self, wanted: usize) -> Result<CpuSet, NoCores> {
        let own = self.own();
        let mut free = self.machine.cores.without(&own);
        let promised: BTreeSet<usize> = self
            .given
            .values()
            .filter_map(|pin| if let Pin::Shared(Some(node)) = pin { Some(*node) } else { None })
            .collect();
        for node in &promised {
            if let Some(first) =
                self.machine.nodes.get(node).and_then(|all| all.among(&free).0.first().copied())
            {
                free.0.remove(&first);
            }
        }
        if promised.is_empty() {
            free.0.pop_first();
        }
        if free.len() < wanted {
            let (own, all) = (own.len(), self.machine.cores.len());
            return Err(NoCores::Taken { wanted, free: free.len(), own, all });
        }
        // The node with the fewest that suffice, so that larger wishes find room later.
        let nodes = self.machine.nodes.values().map(|node| node.among(&free));
        let best = nodes.filter(|node| node.len() >= wanted).min_by_key(CpuSet::len);
        Ok(CpuSet(best.unwrap_or(free).0.into_iter().take(wanted).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::parse(text).unwrap()
    }

    /// Two nodes of four cores.
    fn pins() -> Pins {
        let nodes = BTreeMap::from([(0, set("0-3")), (1, set("4-7"))]);
        Pins::new(Machine { cores: set("0-7"), nodes })
    }

    fn id(name: &str) -> ContainerId {
        ContainerId::new(name)
    }

    #[test]
    fn sets_are_read_and_written_as_the_kernel_does() {
        assert_eq!(set("0-2,5\n").to_string(), "0,1,2,5");
        assert_eq!(set("\n"), CpuSet::default());
        for text in ["x", "1-", "0-99999999999"] {
            assert!(CpuSet::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_core_is_never_given_twice_and_one_stays() {
        let mut pins = pins();
        pins.give(&id("shared"), Wish::Shared).unwrap();
        let mut seen = BTreeSet::new();
        for n in 0..7 {
            pins.give(&id(&n.to_string()), Wish::Exclusive(1)).unwrap();
            assert!(pins.of(&id(&n.to_string())).0.into_iter().all(|core| seen.insert(core)));
        }
        assert_eq!(pins.of(&id("shared")).len(), 1);
        let error = pins.give(&id("last"), Wish::Exclusive(1)).unwrap_err();
        assert_eq!(error, NoCores::Taken { wanted: 1, free: 0, own: 7, all: 8 });
        pins.remove(&id("3"));
        pins.give(&id("last"), Wish::Exclusive(1)).unwrap();
        assert_eq!(pins.of(&id("shared")).len(), 1);
    }

    #[test]
    fn cores_of_ones_own_are_of_one_node_if_they_can() {
        let mut pins = pins();
        pins.give(&id("a"), Wish::Exclusive(2)).unwrap();
        assert_eq!(pins.of(&id("a")), set("1,2"));
        pins.give(&id("b"), Wish::Exclusive(4)).unwrap();
        assert_eq!(pins.of(&id("b")), set("4-7"));
        assert_eq!(pins.of(&id("anybody")), set("0,3"));
    }

    #[test]
    fn a_node_that_was_promised_keeps_a_core() {
        let mut pins = pins();
        pins.give(&id("n"), Wish::Node(1)).unwrap();
        assert_eq!(pins.of(&id("n")), set("4-7"));
        pins.give(&id("a"), Wish::Exclusive(7)).unwrap();
        assert_eq!(pins.of(&id("n")), set("4"));
        assert_eq!(pins.give(&id("m"), Wish::Node(0)), Err(NoCores::NodeTaken(0)));
        assert_eq!(pins.give(&id("x"), Wish::Node(9)), Err(NoCores::NoNode(9, "0, 1".to_owned())));
    }

    #[test]
    fn what_was_given_is_remembered() {
        let mut pins = pins();
        pins.restore(&id("a"), Wish::Exclusive(2), set("0,7"));
        pins.restore(&id("s"), Wish::Shared, set("0-7"));
        assert_eq!(pins.of(&id("s")), set("1-6"));
        assert_eq!(pins.others(&id("a")).collect::<Vec<_>>(), [&id("s")]);
    }

    #[test]
    fn this_machine_has_cores() {
        let machine = Machine::read().unwrap();
        assert!(!machine.cores.is_empty() && !machine.nodes.is_empty());
    }
}
