//! Flags whose values are more than numbers and texts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tepui_api::units::Duration;

/// Why a flag's text is not a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FlagError {
    /// Mesos has it.
    #[error("'{0}' is not implemented yet: use {1}")]
    NotImplemented(String, &'static str),
    /// Nobody has it.
    #[error("'{0}' is none of its values: use {1}")]
    Unknown(String, &'static str),
    /// Out of range.
    #[error("'{0}' is not {1}")]
    Range(String, &'static str),
    /// Not an object of strings.
    #[error("it must be a JSON object whose values are strings: {0}")]
    Variables(String),
    /// Not a list of capabilities.
    #[error("it must be JSON such as {{\"capabilities\":[\"NET_RAW\"]}}: {0}")]
    Capabilities(String),
    /// Not a list of devices.
    #[error("{0}")]
    Devices(String),
    /// Not Mesos' modules, or none that can be had.
    #[error("{0}")]
    Modules(String),
    /// No duration.
    #[error(transparent)]
    Unit(#[from] tepui_api::units::UnitError),
}

macro_rules! only {
    ($(#[$doc:meta])* $name:ident, $value:literal, absent $($absent:literal),*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;

        impl FromStr for $name {
            type Err = FlagError;

            fn from_str(text: &str) -> Result<Self, FlagError> {
                match text {
                    $value => Ok(Self),
                    $($absent)|* => Err(FlagError::NotImplemented(text.to_owned(), $value)),
                    _ => Err(FlagError::Unknown(text.to_owned(), $value)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str($value)
            }
        }
    };
}

only!(
    /// How processes are made.
    Launcher, "linux", absent "posix"
);

/// One of a few names.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $words:literal, $($(#[$about:meta])* $variant:ident = $value:literal),*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $variant),*
        }

        impl FromStr for $name {
            type Err = FlagError;

            fn from_str(text: &str) -> Result<Self, FlagError> {
                match text {
                    $($value => Ok(Self::$variant),)*
                    _ => Err(FlagError::Unknown(text.to_owned(), $words)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $value),*
                })
            }
        }
    };
}

choice!(
    /// What becomes of containers of an earlier run.
    Recover, "reconnect or cleanup",
    /// They go on.
    Reconnect = "reconnect",
    /// They are ended, and so is the agent then.
    Cleanup = "cleanup"
);
choice!(
    /// Which changes of itself a restarted agent may bring.
    ReconfigurationPolicy, "equal, additive or any",
    /// None.
    Equal = "equal",
    /// What only adds.
    Additive = "additive",
    /// All.
    Any = "any"
);

/// A share of the disk, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Headroom(pub f64);

/// Variables by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, String>);

// === impl Headroom ===

impl FromStr for Headroom {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or_else(|| FlagError::Range(text.to_owned(), "a number between 0 and 1"))
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Variables ===

impl FromStr for Variables {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        serde_json::from_str(text).map(Self).map_err(|error| FlagError::Variables(error.to_string()))
    }
}

impl fmt::Display for Variables {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// At most what Mesos allows.
pub fn backoff_factor(text: &str) -> Result<Duration, FlagError> {
    at_most(text, Duration::from_secs(60), "at most 1mins")
}

/// At most what Mesos allows.
pub fn reregistration_timeout(text: &str) -> Result<Duration, FlagError> {
    at_most(text, Duration::from_secs(15), "at most 15secs")
}

/// What an ensemble gives, and a little less and more.
pub fn session_timeout(text: &str) -> Result<Duration, FlagError> {
    let value = at_most(text, Duration::from_secs(600), "between 1secs and 10mins")?;
    if value < Duration::from_secs(1) {
        return Err(FlagError::Range(text.to_owned(), "between 1secs and 10mins"));
    }
    Ok(value)
}

fn at_most(text: &str, limit: Duration, words: &'static str) -> Result<Duration, FlagError> {
    let value: Duration = text.parse()?;
    if value > limit {
        return Err(FlagError::Range(text.to_owned(), words));
    }
    Ok(value)
}
