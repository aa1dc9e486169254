//! How plugins are named in `--isolator_plugin`, and how long their calls may take, from `--isolator_plugin_timeout`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tepui_api::units;

/// One plugin: `NAME=unix:///path/of/socket` or `NAME=/path/to/program`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSettings {
    /// Its name, as isolators have one.
    pub name: String,
    /// Where it is.
    pub target: Target,
}

/// Where a plugin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Somebody else runs it; it listens here.
    Socket(PathBuf),
    /// The agent runs it.
    Program(PathBuf),
}

/// How long each call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Saying who it is.
    pub handshake: Duration,
    /// Taking over the containers that are there.
    pub recover: Duration,
    /// Preparing a container. Before that, as long is waited for a plugin that is away.
    pub prepare: Duration,
    /// Isolating a container that was created; the same.
    pub isolate: Duration,
    /// Changing its limits.
    pub update: Duration,
    /// Telling its usage.
    pub usage: Duration,
    /// Telling its status.
    pub status: Duration,
    /// Taking note of its end.
    pub exited: Duration,
    /// Cleaning up.
    pub cleanup: Duration,
}

/// Why a flag about plugins makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// Neither form.
    #[error("'{0}' must be NAME=unix:///path/of/socket or NAME=/path/to/program, with absolute paths")]
    Form(String),
    /// No such call.
    #[error("'{0}' is no call of a plugin: there are {names}", names = CALLS.join(", "))]
    Call(String),
    /// Not a duration.
    #[error("'{text}' is no time-out: {why}")]
    Duration {
        /// The text.
        text: String,
        /// Why not.
        why: String,
    },
}

/// The names of the time-outs, in order.
const CALLS: [&str; 9] =
    ["handshake", "recover", "prepare", "isolate", "update", "usage", "status", "exited", "cleanup"];

// === impl PluginSettings ===

impl FromStr for PluginSettings {
    type Err = PluginError;

    fn from_str(text: &str) -> Result<Self, PluginError> {
        let wrong = || PluginError::Form(text.to_owned());
        let (name, at) = text.trim().split_once('=').ok_or_else(wrong)?;
        let path = PathBuf::from(at.strip_prefix("unix://").unwrap_or(at));
        if name.is_empty() || !path.is_absolute() || at.ends_with('/') {
            return Err(wrong());
        }
        let target = if at.starts_with("unix:") { Target::Socket(path) } else { Target::Program(path) };
        Ok(Self { name: name.to_owned(), target })
    }
}

impl fmt::Display for PluginSettings {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.target {
            Target::Socket(path) => write!(f, "{}=unix://{}", self.name, path.display()),
            Target::Program(path) => write!(f, "{}={}", self.name, path.display()),
        }
    }
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(5),
            recover: seconds(10),
            prepare: seconds(10),
            isolate: seconds(5),
            update: seconds(5),
            usage: seconds(1),
            status: seconds(1),
            exited: seconds(2),
            cleanup: seconds(5),
        }
    }
}

impl Timeouts {
    fn get(&self, call: &str) -> Option<Duration> {
        let mut copy = *self;
        copy.get_mut(call).map(|duration| *duration)
    }

    fn set(&mut self, call: &str, limit: Duration) {
        if let Some(one) = self.get_mut(call) {
            *one = limit;
        }
    }

    fn get_mut(&mut self, call: &str) -> Option<&mut Duration> {
        Some(match call {
            "handshake" => &mut self.handshake,
            "recover" => &mut self.recover,
            "prepare" => &mut self.prepare,
            "isolate" => &mut self.isolate,
            "update" => &mut self.update,
            "usage" => &mut self.usage,
            "status" => &mut self.status,
            "exited" => &mut self.exited,
            "cleanup" => &mut self.cleanup,
            _ => return None,
        })
    }
}

/// `5secs` for all calls, `prepare=1mins` for one, and several of both, split by commas; the last one counts.
impl FromStr for Timeouts {
    type Err = PluginError;

    fn from_str(text: &str) -> Result<Self, PluginError> {
        let mut timeouts = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((call, limit)) => {
                    let limit = duration(limit)?;
                    if !CALLS.contains(&call) {
                        return Err(PluginError::Call(call.to_owned()));
                    }
                    timeouts.set(call, limit);
                }
                None => {
                    let limit = duration(part)?;
                    CALLS.iter().for_each(|call| timeouts.set(call, limit));
                }
            }
        }
        Ok(timeouts)
    }
}

fn duration(text: &str) -> Result<Duration, PluginError> {
    let wrong = |why: String| PluginError::Duration { text: text.to_owned(), why };
    let limit: units::Duration = text.parse().map_err(|error: units::UnitError| wrong(error.to_string()))?;
    let limit = Duration::from(limit);
    if limit.is_zero() { Err(wrong("a call takes longer than nothing".to_owned())) } else { Ok(limit) }
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, call) in CALLS.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let limit = units::Duration::from(self.get(call).unwrap_or_default());
            write!(f, "{comma}{call}={limit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_sockets_or_programs() {
        for (text, name, target) in [
            ("a=unix:///run/a.sock", "a", Target::Socket("/run/a.sock".into())),
            ("data-set=/usr/lib/x=y", "data-set", Target::Program("/usr/lib/x=y".into())),
        ] {
            let parsed: PluginSettings = text.parse().unwrap();
            assert_eq!(parsed, PluginSettings { name: name.to_owned(), target });
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["", "a", "a=", "=/x", "a=x", "a=unix:x", "a=unix://x", "a=tcp://h:1", "a=/x/"] {
            assert!(text.parse::<PluginSettings>().unwrap_err().to_string().contains("NAME=/path"), "{text}");
        }
    }

    #[test]
    fn time_outs_are_for_all_calls_or_for_one() {
        let timeouts: Timeouts = "2secs, prepare=1mins,usage=50ms".parse().unwrap();
        assert_eq!(timeouts.isolate, Duration::from_secs(2));
        assert_eq!(timeouts.prepare, Duration::from_secs(60));
        assert_eq!(timeouts.usage, Duration::from_millis(50));
        assert_eq!(timeouts.to_string().parse::<Timeouts>().unwrap(), timeouts);
        assert_eq!("".parse::<Timeouts>().unwrap(), Timeouts::default());
        for (text, words) in
            [("prpare=1secs", "no call"), ("1", "no time-out"), ("usage=0secs", "no time-out")]
        {
            assert!(text.parse::<Timeouts>().unwrap_err().to_string().contains(words), "{text}");
        }
    }
}
