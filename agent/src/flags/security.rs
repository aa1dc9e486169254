//! Flags of `linux/capabilities`, `linux/seccomp` and `gpu/nvidia`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use tepui_api::codec::{decode_json, encode_json};
use tepui_api::v1::CapabilityInfo;
use tepui_api::v1::capability_info::Capability;

use super::FlagError;

/// What containers may do.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct SecurityFlags {
    /// Capabilities of tasks that ask for none: JSON as {"capabilities":["NET_RAW"]}, or file:///PATH of it. An empty
    /// list drops all; without the flag a task has those of its user. For the isolator linux/capabilities
    #[arg(
        long = "effective_capabilities",
        alias = "allowed_capabilities",
        value_name = "JSON",
        help_heading = "Security"
    )]
    pub effective_capabilities: Option<CapabilityList>,

    /// The most capabilities that a task may have or get, in the same form; without the flag all. For the isolator
    /// linux/capabilities
    #[arg(long = "bounding_capabilities", value_name = "JSON", help_heading = "Security")]
    pub bounding_capabilities: Option<CapabilityList>,

    /// Directory of seccomp profiles in Docker's format. For the isolator linux/seccomp, which needs it
    #[arg(long = "seccomp_config_dir", value_name = "DIR", help_heading = "Security")]
    pub seccomp_config_dir: Option<PathBuf>,

    /// The profile, relative to that directory, of tasks that name none; without the flag such tasks have none
    #[arg(long = "seccomp_profile_name", value_name = "PATH", help_heading = "Security")]
    pub seccomp_profile_name: Option<String>,

    /// Which GPUs to offer, by their numbers in nvidia-smi, as 0,1; as many as `gpus` in --resources. Without both, all are
    /// offered. For the isolator gpu/nvidia
    #[arg(long = "nvidia_gpu_devices", value_name = "LIST", help_heading = "Resources")]
    pub nvidia_gpu_devices: Option<GpuList>,
}

/// GPUs by their index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuList(pub Vec<u32>);

/// A list of capabilities, as a JSON `CapabilityInfo`.
#[derive(Debug, Clone, PartialEq)]
pub struct CapabilityList(pub CapabilityInfo);

/// The same as it is written.
#[derive(serde::Deserialize)]
struct Names {
    capabilities: Vec<String>,
}

// === impl SecurityFlags ===

impl SecurityFlags {
    /// Each flag that has a value, as text.
    pub(super) fn table(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("bounding_capabilities", self.bounding_capabilities.as_ref().map(ToString::to_string)),
            ("nvidia_gpu_devices", self.nvidia_gpu_devices.as_ref().map(ToString::to_string)),
            ("effective_capabilities", self.effective_capabilities.as_ref().map(ToString::to_string)),
            ("seccomp_config_dir", self.seccomp_config_dir.as_ref().map(|dir| dir.display().to_string())),
            ("seccomp_profile_name", self.seccomp_profile_name.clone()),
        ]
    }
}

// === impl CapabilityList ===

impl FromStr for CapabilityList {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = |reason: String| FlagError::Capabilities(reason);
        let of_file;
        let text = match text.strip_prefix("file://") {
            Some(path) => {
                of_file = std::fs::read_to_string(path).map_err(|error| wrong(format!("{path}: {error}")))?;
                &of_file
            }
            None => text,
        };
        let info: CapabilityInfo = decode_json(text.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        // On the wire an unknown name is passed over, as it may be a newer one; a flag that was mistyped must not be.
        let names: Names = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let unknown =
            |name: &&String| matches!(Capability::from_str_name(name), None | Some(Capability::Unknown));
        match names.capabilities.iter().find(unknown) {
            Some(name) => Err(wrong(format!("'{name}' is not a capability"))),
            None => Ok(Self(info)),
        }
    }
}

impl fmt::Display for CapabilityList {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&encode_json(&self.0)))
    }
}

// === impl GpuList ===

impl FromStr for GpuList {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let numbers = text.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>();
        numbers
            .map(Self)
            .map_err(|_| FlagError::Range(text.to_owned(), "a list of GPUs' numbers such as 0,1"))
    }
}

impl fmt::Display for GpuList {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_numbers() {
        let list: GpuList = "2, 0".parse().unwrap();
        assert_eq!((list.0.as_slice(), list.to_string().as_str()), ([2, 0].as_slice(), "2,0"));
        assert!("all".parse::<GpuList>().unwrap_err().to_string().contains("such as 0,1"));
    }

    #[test]
    fn lists_are_json_or_files_of_it() {
        let list: CapabilityList = r#"{"capabilities": ["CHOWN", "NET_RAW"]}"#.parse().unwrap();
        assert_eq!(list.0.capabilities, [1000, 1013]);
        assert_eq!(list.to_string(), r#"{"capabilities":["CHOWN","NET_RAW"]}"#);
        assert_eq!(r#"{"capabilities": []}"#.parse(), Ok(CapabilityList(CapabilityInfo::default())));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), list.to_string()).unwrap();
        assert_eq!(format!("file://{}", file.path().display()).parse(), Ok(list));
        for (text, words) in [
            ("CHOWN", "capabilities"),
            ("file:///no/such", "/no/such"),
            ("{}", "missing field `capabilities`"),
            (r#"{"capabilities": ["CHOWN", "FLY"]}"#, "'FLY' is not a capability"),
            (r#"{"capabilities": ["UNKNOWN"]}"#, "'UNKNOWN' is not a capability"),
        ] {
            let error = text.parse::<CapabilityList>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
