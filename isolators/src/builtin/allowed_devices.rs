//! `--allowed_devices`: devices of the host that containers may use, as `cgroups/devices` and `linux/devices` take them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use tepui_api::v1::{DeviceAccess, DeviceWhitelist};

use crate::cgroups::devices::{Kind, Rule};

/// A device file of the host, and what containers may do with the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedDevice {
    path: PathBuf,
    rule: Rule,
    number: (u32, u32),
}

/// A device of `--allowed_devices` cannot be allowed.
#[derive(Debug, thiserror::Error)]
pub enum AllowedDeviceError {
    /// No path.
    #[error("a device has no path")]
    NoPath,
    /// Not absolute.
    #[error("the path '{}' is not absolute", .0.display())]
    NotAbsolute(PathBuf),
    /// Nothing is allowed.
    #[error("the device '{}' is allowed nothing: say what of read, write and mknod", .0.display())]
    NoAccess(PathBuf),
    /// No such file.
    #[error("the device '{}' cannot be looked at: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of another kind.
    #[error("'{}' is neither a block nor a character device", .0.display())]
    NoDevice(PathBuf),
}

impl AllowedDevice {
    /// Looks the devices of a flag up on this host.
    ///
    /// # Errors
    /// When one is not there, is no device, or is allowed nothing.
    pub fn list(flag: &DeviceWhitelist) -> Result<Vec<Self>, AllowedDeviceError> {
        flag.allowed_devices.iter().map(Self::look_up).collect()
    }

    fn look_up(given: &DeviceAccess) -> Result<Self, AllowedDeviceError> {
        let path = given.device.path.as_deref().filter(|path| !path.is_empty());
        let path = PathBuf::from(path.ok_or(AllowedDeviceError::NoPath)?);
        if !path.is_absolute() {
            return Err(AllowedDeviceError::NotAbsolute(path));
        }
        let access = &given.access;
        let (read, write, mknod) = (access.read(), access.write(), access.mknod());
        if !(read || write || mknod) {
            return Err(AllowedDeviceError::NoAccess(path));
        }
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            Err(source) => return Err(AllowedDeviceError::Io { path, source }),
        };
        let kind = match about.file_type() {
            kind if kind.is_block_device() => Kind::Block,
            kind if kind.is_char_device() => Kind::Character,
            _ => return Err(AllowedDeviceError::NoDevice(path)),
        };
        // The kernel's numbers have 12 and 20 bits.
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let number = (narrow(major(about.rdev())), narrow(minor(about.rdev())));
        let (major, minor) = (Some(number.0), Some(number.1));
        Ok(AllowedDevice { path, rule: Rule { kind, major, minor, read, write, mknod }, number })
    }

    /// What the cgroup is told.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Major and minor.
    pub fn number(&self) -> (u32, u32) {
        self.number
    }

    /// Where a container finds it: at the same place below `/dev`.
    pub fn path_in_container(&self) -> PathBuf {
        let below = self.path.strip_prefix("/dev").or_else(|_| self.path.strip_prefix("/"));
        Path::new("/dev").join(below.unwrap_or(&self.path))
    }

    /// The mode of the file in a container. Access is the container's: each of its users has what the container has.
    pub fn mode(&self) -> u32 {
        0o600 | if self.rule.read { 0o044 } else { 0 } | if self.rule.write { 0o022 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::codec::decode_json;

    use super::*;

    fn list(text: &str) -> Result<Vec<AllowedDevice>, String> {
        let flag: DeviceWhitelist = decode_json(text.as_bytes()).map_err(|error| error.to_string())?;
        AllowedDevice::list(&flag).map_err(|error| error.to_string())
    }

    fn one(path: &str, access: &str) -> String {
        format!(r#"{{"allowed_devices":[{{"device":{{"path":"{path}"}},"access":{{{access}}}}}]}}"#)
    }

    #[test]
    fn devices_are_looked_up() {
        let found = list(&one("/dev/full", r#""read":true,"mknod":false"#)).unwrap();
        assert_eq!(found[0].rule().to_string(), "c 1:7 r");
        assert_eq!((found[0].mode(), found[0].number()), (0o644, (1, 7)));
        assert_eq!(found[0].path_in_container(), Path::new("/dev/full"));
        let found = list(&one("/dev/full", r#""write":true"#)).unwrap();
        assert_eq!((found[0].rule().to_string().as_str(), found[0].mode()), ("c 1:7 w", 0o622));
    }

    #[test]
    fn what_cannot_be_allowed_is_refused_with_words() {
        for (text, words) in [
            (r#"{"allowed_devices":[{"device":{},"access":{"read":true}}]}"#.to_owned(), "no path"),
            (one("dev/null", r#""read":true"#), "not absolute"),
            (one("/dev/null", ""), "allowed nothing"),
            (one("/dev/no-such-device", r#""read":true"#), "cannot be looked at"),
            (one("/proc/self/stat", r#""read":true"#), "neither a block nor"),
            (r#"{"allowed_devices":[{"device":{"path":"/dev/null"}}]}"#.to_owned(), "access"),
        ] {
            let error = list(&text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
