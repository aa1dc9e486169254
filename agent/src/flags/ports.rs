//! The flags of the isolator `network/ports`.

use std::fmt;
use std::str::FromStr;

use clap::{ArgAction, Args};
use tepui_api::resources::{Range, Ranges};
use tepui_api::units::Duration;

use super::FlagError;

/// The flags of the isolator `network/ports`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Ports")]
pub struct PortFlags {
    /// Time between two looks at the ports that containers listen on
    #[arg(long = "container_ports_watch_interval", value_name = "DURATION", default_value = "30secs")]
    pub container_ports_watch_interval: Duration,

    /// Let containers listen on any port that this agent does not offer
    #[arg(long = "check_agent_port_range_only", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set)]
    pub check_agent_port_range_only: bool,

    /// End containers that listen on ports that they were not given; if false, they are only told of in the log
    #[arg(long = "enforce_container_ports", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set)]
    pub enforce_container_ports: bool,

    /// Let containers listen on any port outside of these, such as [0-35000]
    #[arg(long = "container_ports_isolated_range", value_name = "RANGES")]
    pub container_ports_isolated_range: Option<PortRanges>,
}

/// Ports: `[31000-32000, 8080-8080]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(pub Ranges);

// === impl PortFlags ===

impl PortFlags {
    /// Each flag that has a value, with that value as text, sorted by name.
    pub(super) fn table(&self) -> Vec<(&'static str, Option<String>)> {
        let range = self.container_ports_isolated_range.as_ref();
        vec![
            ("check_agent_port_range_only", Some(self.check_agent_port_range_only.to_string())),
            ("container_ports_isolated_range", range.map(ToString::to_string)),
            ("container_ports_watch_interval", Some(self.container_ports_watch_interval.to_string())),
            ("enforce_container_ports", Some(self.enforce_container_ports.to_string())),
        ]
    }
}

// === impl PortRanges ===

impl FromStr for PortRanges {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        ranges(text, u16::MAX.into()).map(PortRanges).ok_or_else(|| {
            FlagError::Range(text.to_owned(), "a list of ports such as [31000-32000, 8080-8080]")
        })
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads `[1-5, 7-9]`, of numbers up to `highest`.
pub(super) fn ranges(text: &str, highest: u64) -> Option<Ranges> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
    let range = |part: &str| {
        let (begin, end) = part.split_once('-')?;
        let range = Range::new(begin.trim().parse().ok()?, end.trim().parse().ok()?)?;
        (range.end() <= highest).then_some(range)
    };
    parts.map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_list_of_ports_is_refused() {
        for text in ["", "1-2", "[1-2", "[2-1]", "[1]", "[a-b]", "[0-65536]", "[1-2;3-4]"] {
            assert!(text.parse::<PortRanges>().is_err(), "{text}");
        }
        assert_eq!("[]".parse::<PortRanges>().unwrap().0, Ranges::default());
        assert_eq!("[ 1-2,4-4 ]".parse::<PortRanges>().unwrap().to_string(), "[1-2, 4-4]");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in prop::collection::vec((0u16.., 0u16..), 0..6)) {
            let all: Ranges = parts.iter().filter_map(|(a, b)| Range::new((*a).min(*b).into(), (*a).max(*b).into())).collect();
            prop_assert_eq!(all.to_string().parse::<PortRanges>().unwrap().0, all);
        }

        #[test]
        fn no_text_is_a_panic(text in "[\\[\\]0-9, -]{0,20}") {
            let _ = text.parse::<PortRanges>();
        }
    }
}
