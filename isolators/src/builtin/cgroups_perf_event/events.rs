//! The events that Mesos' `PerfStatistics` has a field for, by perf's names.
//!
//! perf writes an event as `cpu-cycles` or `L1-dcache-load-misses`; the field has the same name in lower case and with underscores. The
//! kernel's numbers are those of `linux/perf_event.h` (`perf_hw_id`, `perf_sw_ids`, `perf_hw_cache_id`).

use std::fmt;
use std::str::FromStr;

use tepui_api::v1::PerfStatistics;

/// How the kernel knows an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `perf_event_attr.type`.
    pub kind: u32,
    /// `perf_event_attr.config`.
    pub config: u64,
}

const HARDWARE: u32 = 0;
const SOFTWARE: u32 = 1;
const CACHE: u32 = 3;

// `perf_hw_cache_id`.
const L1_DATA: u64 = 0;
const L1_INSTRUCTIONS: u64 = 1;
const LAST_LEVEL: u64 = 2;
const DATA_TLB: u64 = 3;
const INSTRUCTION_TLB: u64 = 4;
const BRANCH_UNIT: u64 = 5;
const NODE: u64 = 6;

// `perf_hw_cache_op_id`, and that of the results in the byte above.
const LOADS: u64 = 0;
const STORES: u64 = 1 << 8;
const PREFETCHES: u64 = 2 << 8;
const MISSES: u64 = 1 << 16;

/// An event, by the name of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerfEvent(&'static Known);

/// `--perf_events`: names with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerfEvents(pub Vec<PerfEvent>);

/// A name of `--perf_events` is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Mesos has no field for it.
    #[error("'{0}' is not an event that PerfStatistics has a field for; those are {1}")]
    Unknown(String, String),
    /// No names.
    #[error("it names no events; without the flag nothing is counted")]
    Empty,
}

struct Known {
    name: &'static str,
    code: Code,
    set: fn(&mut PerfStatistics, f64),
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// No two have the same name.
impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Known {}

macro_rules! counts {
    ($($field:ident = $kind:expr, $config:expr;)*) => {
        [$(Known {
            name: stringify!($field),
            code: Code { kind: $kind, config: $config },
            // Counts are below 2^53 for years of a CPU's time.
            set: |statistics, value| statistics.$field = Some(value.round() as u64),
        }),*]
    };
}

/// Clocks count nanoseconds, and perf tells milliseconds.
static CLOCKS: [Known; 2] = [
    Known {
        name: "cpu_clock",
        code: Code { kind: SOFTWARE, config: 0 },
        set: |statistics, value| statistics.cpu_clock = Some(value / 1e6),
    },
    Known {
        name: "task_clock",
        code: Code { kind: SOFTWARE, config: 1 },
        set: |statistics, value| statistics.task_clock = Some(value / 1e6),
    },
];

static COUNTS: [Known; 49] = counts! {
    cycles = HARDWARE, 0;
    instructions = HARDWARE, 1;
    cache_references = HARDWARE, 2;
    cache_misses = HARDWARE, 3;
    branches = HARDWARE, 4;
    branch_misses = HARDWARE, 5;
    bus_cycles = HARDWARE, 6;
    stalled_cycles_frontend = HARDWARE, 7;
    stalled_cycles_backend = HARDWARE, 8;
    ref_cycles = HARDWARE, 9;
    page_faults = SOFTWARE, 2;
    context_switches = SOFTWARE, 3;
    cpu_migrations = SOFTWARE, 4;
    minor_faults = SOFTWARE, 5;
    major_faults = SOFTWARE, 6;
    alignment_faults = SOFTWARE, 7;
    emulation_faults = SOFTWARE, 8;
    l1_dcache_loads = CACHE, L1_DATA | LOADS;
    l1_dcache_load_misses = CACHE, L1_DATA | LOADS | MISSES;
    l1_dcache_stores = CACHE, L1_DATA | STORES;
    l1_dcache_store_misses = CACHE, L1_DATA | STORES | MISSES;
    l1_dcache_prefetches = CACHE, L1_DATA | PREFETCHES;
    l1_dcache_prefetch_misses = CACHE, L1_DATA | PREFETCHES | MISSES;
    l1_icache_loads = CACHE, L1_INSTRUCTIONS | LOADS;
    l1_icache_load_misses = CACHE, L1_INSTRUCTIONS | LOADS | MISSES;
    l1_icache_prefetches = CACHE, L1_INSTRUCTIONS | PREFETCHES;
    l1_icache_prefetch_misses = CACHE, L1_INSTRUCTIONS | PREFETCHES | MISSES;
    llc_loads = CACHE, LAST_LEVEL | LOADS;
    llc_load_misses = CACHE, LAST_LEVEL | LOADS | MISSES;
    llc_stores = CACHE, LAST_LEVEL | STORES;
    llc_store_misses = CACHE, LAST_LEVEL | STORES | MISSES;
    llc_prefetches = CACHE, LAST_LEVEL | PREFETCHES;
    llc_prefetch_misses = CACHE, LAST_LEVEL | PREFETCHES | MISSES;
    dtlb_loads = CACHE, DATA_TLB | LOADS;
    dtlb_load_misses = CACHE, DATA_TLB | LOADS | MISSES;
    dtlb_stores = CACHE, DATA_TLB | STORES;
    dtlb_store_misses = CACHE, DATA_TLB | STORES | MISSES;
    dtlb_prefetches = CACHE, DATA_TLB | PREFETCHES;
    dtlb_prefetch_misses = CACHE, DATA_TLB | PREFETCHES | MISSES;
    itlb_loads = CACHE, INSTRUCTION_TLB | LOADS;
    itlb_load_misses = CACHE, INSTRUCTION_TLB | LOADS | MISSES;
    branch_loads = CACHE, BRANCH_UNIT | LOADS;
    branch_load_misses = CACHE, BRANCH_UNIT | LOADS | MISSES;
    node_loads = CACHE, NODE | LOADS;
    node_load_misses = CACHE, NODE | LOADS | MISSES;
    node_stores = CACHE, NODE | STORES;
    node_store_misses = CACHE, NODE | STORES | MISSES;
    node_prefetches = CACHE, NODE | PREFETCHES;
    node_prefetch_misses = CACHE, NODE | PREFETCHES | MISSES;
};

/// perf's second names of some.
const ALIASES: [(&str, &str); 5] = [
    ("cpu_cycles", "cycles"),
    ("branch_instructions", "branches"),
    ("cs", "context_switches"),
    ("migrations", "cpu_migrations"),
    ("faults", "page_faults"),
];

fn known() -> impl Iterator<Item = &'static Known> {
    CLOCKS.iter().chain(&COUNTS)
}

// === impl PerfEvent ===

impl PerfEvent {
    /// The name of its field.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    pub(super) fn code(self) -> Code {
        self.0.code
    }

    /// Fills the field: a count, or nanoseconds of a clock.
    pub(super) fn fill(self, statistics: &mut PerfStatistics, value: f64) {
        (self.0.set)(statistics, value);
    }
}

impl FromStr for PerfEvent {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Self, EventError> {
        let name = text.trim().to_lowercase().replace('-', "_");
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        let name = alias.map_or(name.as_str(), |(_, name)| name);
        known().find(|known| known.name == name).map(PerfEvent).ok_or_else(|| {
            let names: Vec<&str> = known().map(|known| known.name).collect();
            EventError::Unknown(text.trim().to_owned(), names.join(", "))
        })
    }
}

impl fmt::Display for PerfEvent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

// === impl PerfEvents ===

/// Each once.
impl FromStr for PerfEvents {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Self, EventError> {
        let mut events: Vec<PerfEvent> = Vec::new();
        for name in text.split(',').filter(|name| !name.trim().is_empty()) {
            let event = name.parse()?;
            if !events.contains(&event) {
                events.push(event);
            }
        }
        if events.is_empty() { Err(EventError::Empty) } else { Ok(PerfEvents(events)) }
    }
}

impl fmt::Display for PerfEvents {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|event| event.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perfs_names_are_taken_and_others_refused_with_those_there_are() {
        let events: PerfEvents = "cpu-cycles, L1-dcache-load-misses,task-clock,cycles".parse().unwrap();
        assert_eq!(events.to_string(), "cycles,l1_dcache_load_misses,task_clock");
        let error = "cycles:u".parse::<PerfEvents>().unwrap_err().to_string();
        assert!(error.contains("'cycles:u'") && error.contains("node_prefetch_misses"), "{error}");
        assert_eq!(" ,".parse::<PerfEvents>(), Err(EventError::Empty));
    }

    #[test]
    fn every_field_has_an_event_of_its_own() {
        let mut statistics = PerfStatistics::default();
        for (at, event) in known().map(PerfEvent).enumerate() {
            event.fill(&mut statistics, (at + 1) as f64 * 1e6);
        }
        let text = String::from_utf8(tepui_api::codec::encode_json(&statistics)).unwrap();
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(fields.len(), known().count() + 2, "and the time and duration: {text}");
        let values: std::collections::BTreeSet<String> = fields.values().map(ToString::to_string).collect();
        assert_eq!(values.len(), known().count() + 1, "time and duration are both 0: {text}");
        assert_eq!(statistics.cpu_clock, Some(1.0));
        let codes: Vec<Code> = known().map(|known| known.code).collect();
        for (at, code) in codes.iter().enumerate() {
            assert!(!codes.iter().skip(at + 1).any(|other| other == code), "{code:?}");
        }
    }
}
