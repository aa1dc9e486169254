//! Which device files the processes of a cgroup may open and make.
//!
//! v1 has a list of exceptions in files (`devices.deny`, `devices.allow`; `admin-guide/cgroup-v1/devices.rst`). v2 has none: there
//! an eBPF program is attached to the cgroup, which the kernel asks at every open and mknod (`admin-guide/cgroup-v2.rst`, "Device
//! controller"). The program is made from the same rules ([`program`]), checked by the kernel once, and attached to any
//! number of cgroups ([`bpf`]). It belongs to the cgroup: it stays when the agent ends, and goes when the cgroup is removed.
//!
//! A process may do what its cgroup and all those above allow, in v1 as in v2.

mod bpf;
mod program;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{CgroupError, Version, files};

pub use bpf::Attached;

/// Block or character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `b`.
    Block,
    /// `c`.
    Character,
}

/// What may be done with which devices: `c 1:3 rwm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Block or character.
    pub kind: Kind,
    /// `None` for all.
    pub major: Option<u32>,
    /// `None` for all.
    pub minor: Option<u32>,
    /// May be opened for reading.
    pub read: bool,
    /// May be opened for writing.
    pub write: bool,
    /// A file for it may be made.
    pub mknod: bool,
}

/// Not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a rule for devices, such as 'c 1:3 rwm' or 'b *:* m'")]
pub struct RuleError(String);

/// Rules as a cgroup of this host takes them.
#[derive(Debug)]
pub struct Filter(Form);

#[derive(Debug)]
enum Form {
    V1(Vec<Rule>),
    V2(bpf::Program),
}

// === impl Rule ===

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        parse(text).ok_or_else(|| RuleError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Rule> {
    let mut words = text.split_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let kind = match kind {
        "b" => Kind::Block,
        "c" => Kind::Character,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        number => number.parse().ok().map(Some),
    };
    let known = access.chars().all(|letter| "rwm".contains(letter));
    if !known || access.is_empty() || words.next().is_some() {
        return None;
    }
    Some(Rule {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}

/// As v1's files take it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (given, letter) in [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')] {
            if given {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

// === impl Filter ===

impl Filter {
    /// Nothing but what these rules say.
    ///
    /// # Errors
    /// When the kernel does not take a program of this kind (it needs Linux 4.15, and CAP_BPF or CAP_SYS_ADMIN).
    pub fn new(rules: &[Rule], version: Version) -> Result<Self, CgroupError> {
        match version {
            Version::V1 => Ok(Filter(Form::V1(rules.to_vec()))),
            Version::V2 => bpf::Program::load(&program::program(rules))
                .map(|program| Filter(Form::V2(program)))
                .map_err(|error| {
                    CgroupError::Unable(format!(
                        "the kernel takes no eBPF program for devices, by which cgroup v2 limits them (Linux 4.15 with \
                         CONFIG_CGROUP_BPF, as root): {error}"
                    ))
                }),
        }
    }

    /// Puts the filter into force in a cgroup. On v2, one of ours that is there is replaced at one stroke; on v1, a cgroup must not have
    /// cgroups below it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(&self, dir: &Path) -> Result<(), CgroupError> {
        match &self.0 {
            Form::V1(rules) => {
                files::write(&dir.join("devices.deny"), "a")?;
                let allow: PathBuf = dir.join("devices.allow");
                rules.iter().try_for_each(|rule| files::write(&allow, rule))
            }
            Form::V2(program) => {
                program.attach(dir).map_err(|error| CgroupError::io("filter the devices of", dir, error))
            }
        }
    }

    /// Whether a filter is in force in a cgroup: any, as it was made by whoever made the cgroup.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn is_applied(&self, dir: &Path) -> Result<bool, CgroupError> {
        match &self.0 {
            Form::V1(_) => Ok(!files::read(&dir.join("devices.list"))?.starts_with("a *:* rwm")),
            Form::V2(_) => {
                let found =
                    bpf::attached(dir).map_err(|error| CgroupError::io("look at the devices of", dir, error));
                Ok(!found?.is_empty())
            }
        }
    }
}

/// Our programs that are attached to a v2 cgroup.
///
/// # Errors
/// When the kernel does not tell.
pub fn attached(dir: &Path) -> Result<Vec<Attached>, CgroupError> {
    bpf::attached(dir).map_err(|error| CgroupError::io("look at the devices of", dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_shown_as_the_kernel_does() {
        for text in ["c 1:3 rwm", "b *:* m", "c 136:* rw", "b 8:16 r"] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for text in ["", "a *:* rwm", "c 1 rwm", "c 1:3", "c 1:3 rx", "c x:3 r", "c 1:3 r w", "c -1:3 r"] {
            assert!(text.parse::<Rule>().unwrap_err().to_string().contains("c 1:3 rwm"), "{text}");
        }
    }
}
