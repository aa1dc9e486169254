//! How many GPUs an agent offers: what `--resources` and `--nvidia_gpu_devices` say of them, held against what there is.
//!
//! With the isolator `gpu/nvidia`, `gpus` in `--resources` and `--nvidia_gpu_devices` come together and agree, or neither is there: then all GPUs
//! are offered. `gpus:0` offers none. Without the isolator, GPUs are a number like any other, and the flag has no meaning. Rules:
//! Mesos' `docs/gpu-support.md`.

use crate::flags::Settings;

/// What the agent is told of GPUs.
#[derive(Debug, Clone, Copy)]
pub struct Gpus<'a> {
    /// Whether `gpu/nvidia` is in `--isolation`.
    pub isolated: bool,
    /// `--nvidia_gpu_devices`.
    pub devices: Option<&'a [u32]>,
    /// How many the machine has, or why it has none.
    pub available: fn() -> Result<usize, String>,
}

/// GPUs that are not there, or not those that the flags say.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GpuError {
    /// The flag without the isolator.
    #[error("--nvidia_gpu_devices is of use only with the isolator gpu/nvidia: add it to --isolation")]
    NotIsolated,
    /// None are offered, but some named.
    #[error("--nvidia_gpu_devices names GPUs, but --resources says gpus:0: leave one of them out")]
    Zero,
    /// One without the other.
    #[error(
        "--nvidia_gpu_devices and gpus in --resources must be given together, or neither to offer all GPUs"
    )]
    Together,
    /// Parts of a GPU.
    #[error("--resources says gpus:{0}, but GPUs are whole")]
    Parts(f64),
    /// Different numbers.
    #[error("--resources says gpus:{named}, but --nvidia_gpu_devices names {listed}: make them the same")]
    Different {
        /// As `--resources` says.
        named: f64,
        /// As the flag says.
        listed: usize,
    },
    /// None there.
    #[error("the isolator gpu/nvidia finds no GPU to offer: {0}")]
    None(String),
    /// Fewer there.
    #[error("--resources says gpus:{named}, but this machine has {available}")]
    Fewer {
        /// As `--resources` says.
        named: f64,
        /// As the machine has.
        available: usize,
    },
}

/// Without the isolator.
impl Default for Gpus<'_> {
    fn default() -> Self {
        Gpus { isolated: false, devices: None, available: tepui_isolators::gpus }
    }
}

impl<'a> Gpus<'a> {
    /// What the flags say.
    pub(crate) fn of(settings: &'a Settings) -> Self {
        Gpus {
            isolated: settings.isolation.split(',').any(|name| name.trim() == "gpu/nvidia"),
            devices: settings.security.nvidia_gpu_devices.as_ref().map(|list| list.0.as_slice()),
            ..Gpus::default()
        }
    }

    /// How many to offer beyond what `--resources` names, which has so many or does not name them.
    pub(crate) fn to_offer(self, named: Option<f64>) -> Result<Option<usize>, GpuError> {
        if !self.isolated {
            return if self.devices.is_some() { Err(GpuError::NotIsolated) } else { Ok(None) };
        }
        let available = (self.available)().map_err(GpuError::None)?;
        match (named, self.devices) {
            (None, None) => Ok(Some(available)),
            (Some(0.0), None) => Ok(None),
            (Some(0.0), Some(_)) => Err(GpuError::Zero),
            (None, Some(_)) | (Some(_), None) => Err(GpuError::Together),
            (Some(named), Some(_)) if named.fract() != 0.0 => Err(GpuError::Parts(named)),
            (Some(named), Some(devices)) if !same(named, devices.len()) => {
                Err(GpuError::Different { named, listed: devices.len() })
            }
            (Some(named), Some(devices)) if devices.len() > available => {
                Err(GpuError::Fewer { named, available })
            }
            (Some(_), Some(_)) => Ok(None),
        }
    }
}

fn same(named: f64, listed: usize) -> bool {
    u32::try_from(listed).is_ok_and(|listed| (named - f64::from(listed)).abs() < 0.0005)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Result<usize, String> {
        Ok(2)
    }

    #[test]
    fn flags_agree_with_each_other_and_the_machine() {
        let offer =
            |devices: Option<&[u32]>, named| Gpus { isolated: true, devices, available: two }.to_offer(named);
        assert_eq!(offer(None, None), Ok(Some(2)));
        assert_eq!(offer(None, Some(0.0)), Ok(None));
        assert_eq!(offer(Some(&[0, 1]), Some(2.0)), Ok(None));
        assert_eq!(offer(Some(&[0]), Some(0.0)), Err(GpuError::Zero));
        assert_eq!(offer(Some(&[0]), None), Err(GpuError::Together));
        assert_eq!(offer(None, Some(1.0)), Err(GpuError::Together));
        assert_eq!(offer(Some(&[0]), Some(0.5)), Err(GpuError::Parts(0.5)));
        assert_eq!(offer(Some(&[0]), Some(2.0)), Err(GpuError::Different { named: 2.0, listed: 1 }));
        assert_eq!(offer(Some(&[0, 1, 2]), Some(3.0)), Err(GpuError::Fewer { named: 3.0, available: 2 }));
    }

    #[test]
    fn without_the_isolator_they_are_a_number() {
        assert_eq!(Gpus::default().to_offer(Some(1.5)), Ok(None));
        assert_eq!(Gpus::default().to_offer(None), Ok(None));
        let listed = Gpus { devices: Some(&[0]), ..Gpus::default() };
        assert_eq!(listed.to_offer(None), Err(GpuError::NotIsolated));
    }

    #[test]
    fn a_machine_without_any_says_so() {
        let none = Gpus { isolated: true, devices: None, available: || Err("no driver".to_owned()) };
        assert_eq!(
            none.to_offer(None).unwrap_err().to_string(),
            "the isolator gpu/nvidia finds no GPU to offer: no driver"
        );
    }
}
