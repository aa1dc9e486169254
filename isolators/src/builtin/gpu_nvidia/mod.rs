//! `gpu/nvidia`: whole GPUs for one container each.
//!
//! A container that has `gpus` gets as many of the machine's, and nobody else has them meanwhile. It may open their device files and those of the
//! driver (`/dev/nvidiactl`, `/dev/nvidia-uvm`, `/dev/nvidia-uvm-tools`), which every container may, so that `nvidia-smi` answers; no
//! other GPU's. With an image, the files are made in its `/dev`. What may be opened is for the kernel to say, so `cgroups/devices` must be
//! there, and acts before. `discovery` has how GPUs are found, `holders` who has which.
//!
//! Rules: Mesos' `docs/gpu-support.md`.

mod discovery;
mod holders;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use tepui_api::resources::Resources;

use super::cgroups_devices;
use crate::catalogue::Parts;
use crate::cgroups::devices::{Filter, Kind, Rule};
use crate::cgroups::{Cgroups, Controller, Version, files};
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limits, Recovered, done,
};
use discovery::{Device, Found};
use holders::Holders;

/// The flags of `gpu/nvidia`, and where it keeps who has which GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSettings {
    /// `--nvidia_gpu_devices`: the GPUs to give to containers, by their index in `nvidia-smi`. Absent: all.
    pub devices: Option<Vec<u32>>,
    /// `isolators/gpu/nvidia` below `--runtime_dir`.
    pub state_dir: PathBuf,
    /// Below which `/proc` and `/sys` tell of GPUs: `/`, but for tests.
    pub root: PathBuf,
}

impl Default for GpuSettings {
    fn default() -> Self {
        GpuSettings { devices: None, state_dir: PathBuf::new(), root: PathBuf::from("/") }
    }
}

/// How many GPUs this machine has that can be given to containers.
///
/// # Errors
/// When there are none; the text says why.
pub fn count() -> Result<usize, String> {
    discovery::look(Path::new("/")).map(|found| found.gpus.len()).map_err(|error| error.to_string())
}

struct Nvidia {
    /// By their index.
    gpus: Vec<Device>,
    controls: Vec<Device>,
    /// What every container may open anyhow.
    base: Vec<Rule>,
    cgroups: Arc<Cgroups>,
    holders: Mutex<Holders>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let settings = &parts.settings.gpu;
    if !settings.root.join("dev/nvidia-uvm").exists() {
        // The module of that device is loaded when it is first asked for, by this program of the driver's. If it fails, so does what follows.
        let _ = std::process::Command::new("nvidia-modprobe").args(["-u", "-c", "0"]).status();
    }
    let found = discovery::look(&settings.root).map_err(|error| MakeError::Host(error.to_string()))?;
    Ok(Arc::new(Nvidia::new(found, settings, cgroups_devices::rules(parts)?, parts.cgroups()?)?))
}

impl Nvidia {
    fn new(
        found: Found,
        settings: &GpuSettings,
        base: Vec<Rule>,
        cgroups: Arc<Cgroups>,
    ) -> Result<Self, MakeError> {
        let gpus = chosen(found.gpus, settings.devices.as_deref()).map_err(MakeError::Setting)?;
        let holders = Holders::open(&settings.state_dir, gpus.iter().map(|gpu| gpu.minor).collect())
            .map_err(|error| MakeError::Host(error.to_string()))?;
        Ok(Self { gpus, controls: found.controls, base, cgroups, holders: Mutex::new(holders) })
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recover(&self, known: &[Recovered], orphans: &[ContainerId]) -> Result<(), IsolatorError> {
        let known: Vec<_> = known.iter().map(|one| one.context.container_id.clone()).collect();
        self.holders().recover(&known, orphans)
    }

    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        // A nested container is in the cgroups of its parent, which has the GPUs.
        if context.container_id.parent.is_some() {
            return Ok(());
        }
        let given = self.holders().set(&context.container_id, whole(&context.requests)?)?;
        self.allow(&context.container_id, &given, &[])?;
        if context.has_rootfs {
            let files = self.controls.iter().chain(self.of(&given)).map(file).collect::<Result<Vec<_>, _>>();
            let files = files.map_err(|error| IsolatorError::Failed(error.to_string()))?;
            let mut linux = contribution.spec.linux().clone().unwrap_or_default();
            let mut devices = linux.devices().clone().unwrap_or_default();
            devices.extend(files);
            linux.set_devices(Some(devices));
            contribution.spec.set_linux(Some(linux));
        }
        Ok(())
    }

    fn update(&self, id: &ContainerId, requests: &Resources) -> Result<(), IsolatorError> {
        if id.parent.is_some() {
            return Ok(());
        }
        let before = self.holders().held(id);
        let wanted = whole(requests)?;
        if before.len() == wanted {
            return Ok(());
        }
        let given = self.holders().set(id, wanted)?;
        let lost: Vec<u32> = before.into_iter().filter(|minor| !given.contains(minor)).collect();
        self.allow(id, &given, &lost)
    }

    /// Lets a container open these GPUs, and no longer those.
    fn allow(&self, id: &ContainerId, given: &[u32], lost: &[u32]) -> Result<(), IsolatorError> {
        let (dir, version) = self.cgroups.dir(id, Controller::Devices)?;
        let more = self.controls.iter().chain(self.of(given)).map(rule);
        match version {
            Version::V2 => {
                let all: Vec<_> = self.base.iter().copied().chain(more).collect();
                Filter::new(&all, version)?.apply(&dir)?;
            }
            Version::V1 => {
                let (allow, deny) = (dir.join("devices.allow"), dir.join("devices.deny"));
                for rule in more {
                    files::write(&allow, rule)?;
                }
                self.of(lost).map(rule).try_for_each(|rule| files::write(&deny, rule))?;
            }
        }
        Ok(())
    }

    fn of<'a>(&'a self, minors: &'a [u32]) -> impl Iterator<Item = &'a Device> {
        self.gpus.iter().filter(|gpu| minors.contains(&gpu.minor))
    }
}

/// Those of the machine that are to be given out.
fn chosen(all: Vec<Device>, indices: Option<&[u32]>) -> Result<Vec<Device>, String> {
    let Some(indices) = indices else { return Ok(all) };
    let mut chosen: Vec<Device> = Vec::new();
    for index in indices {
        let gpu = usize::try_from(*index).ok().and_then(|index| all.get(index)).ok_or_else(|| {
            format!("--nvidia_gpu_devices names the GPU {index}, but this machine has {} (from 0)", all.len())
        })?;
        if chosen.contains(gpu) {
            return Err(format!("--nvidia_gpu_devices names the GPU {index} twice"));
        }
        chosen.push(gpu.clone());
    }
    Ok(chosen)
}

/// The number of GPUs that are asked for.
fn whole(requests: &Resources) -> Result<usize, IsolatorError> {
    let Some(gpus) = requests.gpus() else { return Ok(0) };
    let number = usize::try_from(gpus.thousandths() / 1000).ok();
    number.filter(|_| gpus.thousandths() % 1000 == 0).ok_or_else(|| {
        IsolatorError::Refused(format!("GPUs are given out whole, and {} of them cannot be", gpus.as_f64()))
    })
}

fn rule(device: &Device) -> Rule {
    Rule {
        kind: Kind::Character,
        major: Some(device.major),
        minor: Some(device.minor),
        read: true,
        write: true,
        mknod: true,
    }
}

/// For all users of the container.
fn file(device: &Device) -> Result<LinuxDevice, oci_spec::OciSpecError> {
    LinuxDeviceBuilder::default()
        .path(&device.path)
        .typ(LinuxDeviceType::C)
        .major(i64::from(device.major))
        .minor(i64::from(device.minor))
        .file_mode(0o666_u32)
        .uid(0_u32)
        .gid(0_u32)
        .build()
}

impl Isolator for Nvidia {
    fn name(&self) -> &str {
        "gpu/nvidia"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], orphans: &'a [ContainerId]) -> Answer<'a> {
        done(Nvidia::recover(self, known, orphans))
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(Nvidia::prepare(self, context, contribution))
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, _: &'a Limits) -> Answer<'a> {
        done(Nvidia::update(self, id, requests))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        done(self.holders().release(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(minors: &[u32]) -> Vec<Device> {
        let root = discovery::tests::machine(minors);
        discovery::look(root.path()).unwrap().gpus
    }

    #[test]
    fn the_operator_chooses_by_index() {
        let minors = |chosen: Vec<Device>| chosen.iter().map(|gpu| gpu.minor).collect::<Vec<_>>();
        let all = gpus(&[1, 0, 2]);
        assert_eq!(minors(chosen(all.clone(), None).unwrap()), [1, 0, 2]);
        assert_eq!(minors(chosen(all.clone(), Some(&[2, 0])).unwrap()), [2, 1]);
        assert_eq!(minors(chosen(all.clone(), Some(&[])).unwrap()), [0_u32; 0]);
        let error = chosen(all.clone(), Some(&[3])).unwrap_err();
        assert!(error.contains("names the GPU 3, but this machine has 3 (from 0)"), "{error}");
        assert!(chosen(all, Some(&[1, 1])).unwrap_err().contains("twice"));
    }

    #[test]
    fn gpus_are_whole() {
        let of = |text: &str| whole(&Resources::parse(text, "*").unwrap());
        assert_eq!(of("cpus:1").unwrap(), 0);
        assert_eq!(of("gpus:2").unwrap(), 2);
        assert!(matches!(of("gpus:0.5"), Err(IsolatorError::Refused(text)) if text.contains("0.5")));
    }

    #[test]
    fn a_rule_is_what_a_cgroup_takes() {
        assert_eq!(rule(&gpus(&[3])[0]).to_string(), "c 195:3 rwm");
        let made = file(&gpus(&[3])[0]).unwrap();
        assert_eq!((made.path().as_path(), made.minor()), (Path::new("/dev/nvidia3"), 3));
    }
}
