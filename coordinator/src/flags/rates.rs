//! Shares and rates in the text form of Mesos' flags: `20%`, `1/10mins`.

use std::fmt::{self, Display};
use std::str::FromStr;

use tepui_api::units::Duration;

use super::FlagError;
use crate::core::RemovalRate;

/// A share, from 0 to 100 of a hundred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentage(f64);

/// So many agents in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentRate {
    agents: u32,
    time: Duration,
}

// === impl Percentage ===

impl Percentage {
    /// From 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percentage {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let number = number.filter(|number| (0.0..=100.0).contains(number));
        number.map(Self).ok_or_else(|| FlagError::Percentage(text.to_owned()))
    }
}

impl Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

// === impl AgentRate ===

impl AgentRate {
    /// As the core has it: evenly spread, as in Mesos.
    #[must_use]
    pub fn rate(&self) -> RemovalRate {
        RemovalRate { spacing: std::time::Duration::from(self.time) / self.agents }
    }
}

impl FromStr for AgentRate {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = || FlagError::Rate(text.to_owned());
        let (agents, time) = text.split_once('/').ok_or_else(wrong)?;
        let agents = agents.trim().parse::<u32>().ok().filter(|agents| *agents > 0).ok_or_else(wrong)?;
        let time = time.trim().parse::<Duration>().ok().filter(|time| *time > Duration::default());
        Ok(Self { agents, time: time.ok_or_else(wrong)? })
    }
}

impl Display for AgentRate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.agents, self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_spread_evenly() {
        let spacing = |text: &str| text.parse::<AgentRate>().unwrap().rate().spacing.as_secs();
        assert_eq!((spacing("1/10mins"), spacing("2/3hrs")), (600, 5400));
        assert_eq!("2/3hrs".parse::<AgentRate>().unwrap().to_string(), "2/3hrs");
    }

    #[test]
    fn shares() {
        assert!(("12.5%".parse::<Percentage>().unwrap().share() - 0.125).abs() < 1e-12);
        for wrong in ["", "%", "20", "-1%", "100.1%", "NaN%"] {
            assert!(wrong.parse::<Percentage>().is_err(), "{wrong}");
        }
    }
}
