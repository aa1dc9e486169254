//! `linux/devices`: files for the devices of `--allowed_devices`, in containers with a root file system of their own.
//!
//! Adds the devices to the runtime spec, from which the runtime makes the files in the container's own `/dev`, so that the container needs no
//! right to make them. Without an image a container sees the host's `/dev`, and there is nothing to do. What may be done with a
//! device is for `cgroups/devices` to say. Rules: Mesos' `docs/isolators/linux-devices.md`.

use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use super::allowed_devices::AllowedDevice;
use crate::catalogue::Parts;
use crate::cgroups::devices::Kind;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

/// Those that the runtime makes in any case.
const ALWAYS_THERE: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/urandom", "/dev/random"];

struct LinuxDevices {
    devices: Vec<LinuxDevice>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let wanted = parts.settings.cgroups.allowed_devices.iter();
    let wanted = wanted
        .filter(|device| !ALWAYS_THERE.iter().any(|path| device.path_in_container() == Path::new(path)));
    let devices = wanted.map(device).collect::<Result<_, _>>();
    let devices =
        devices.map_err(|error| MakeError::Host(format!("a device cannot be described: {error}")))?;
    Ok(Arc::new(LinuxDevices { devices }))
}

fn device(allowed: &AllowedDevice) -> Result<LinuxDevice, oci_spec::OciSpecError> {
    let kind = match allowed.rule().kind {
        Kind::Block => LinuxDeviceType::B,
        Kind::Character => LinuxDeviceType::C,
    };
    let (major, minor) = allowed.number();
    LinuxDeviceBuilder::default()
        .path(allowed.path_in_container())
        .typ(kind)
        .major(i64::from(major))
        .minor(i64::from(minor))
        .file_mode(allowed.mode())
        .uid(0u32)
        .gid(0u32)
        .build()
}

impl LinuxDevices {
    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        if !context.has_rootfs || self.devices.is_empty() {
            return Ok(());
        }
        let mut linux = contribution.spec.linux().clone().unwrap_or_default();
        let mut devices = linux.devices().clone().unwrap_or_default();
        devices.extend(self.devices.iter().cloned());
        linux.set_devices(Some(devices));
        contribution.spec.set_linux(Some(linux));
        Ok(())
    }
}

impl Isolator for LinuxDevices {
    fn name(&self) -> &str {
        "linux/devices"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(LinuxDevices::prepare(self, context, contribution))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::tests::{context, empty_spec};

    #[test]
    fn only_a_container_with_an_image_gets_files() {
        let device = LinuxDeviceBuilder::default()
            .path("/dev/x")
            .typ(LinuxDeviceType::C)
            .major(1)
            .minor(7)
            .build()
            .unwrap();
        let isolator = LinuxDevices { devices: vec![device.clone()] };
        for (has_rootfs, expected) in [(false, None), (true, Some(vec![device]))] {
            let mut context = context(None);
            context.has_rootfs = has_rootfs;
            let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
            isolator.prepare(&context, &mut contribution).unwrap();
            let devices = contribution.spec.linux().as_ref().unwrap().devices().clone();
            assert_eq!(devices.filter(|devices| !devices.is_empty()), expected);
        }
    }
}
