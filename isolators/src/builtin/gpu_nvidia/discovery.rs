//! Which NVIDIA GPUs the machine has, and by which device files they are used.
//!
//! The driver tells of its GPUs below `/proc/driver/nvidia/gpus`, by PCI address, each with the minor number of its device file. The order of
//! addresses is that of NVML and `nvidia-smi`, so that indices are the same. The major numbers are in `/proc/devices`. If
//! the driver tells of none, the PCI bus says whether there is a GPU without a driver (vendor 0x10de, class 0x03: display controllers).

use std::fs;
use std::path::{Path, PathBuf};

/// A device file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device {
    pub path: PathBuf,
    pub major: u32,
    pub minor: u32,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// By their index in NVML.
    pub gpus: Vec<Device>,
    /// What every program that uses a GPU, or asks about them, needs.
    pub controls: Vec<Device>,
}

/// No GPU can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoGpu {
    #[error(
        "there is no NVIDIA GPU: neither does a driver tell of one in {0}, nor is one on the PCI bus (vendor 0x10de, class 0x03)"
    )]
    None(PathBuf),
    #[error(
        "the NVIDIA GPU at {} has no driver: {directory} does not name it; install and load NVIDIA's kernel module",
        addresses.join(", ")
    )]
    NoDriver { addresses: Vec<String>, directory: PathBuf },
    #[error("{path} does not say which minor number the GPU has ('Device Minor:')")]
    NoMinor { path: PathBuf },
    #[error("{path} cannot be read: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error(
        "{0} has no major number of '{1}': load its kernel module, for example by nvidia-modprobe -u -c 0"
    )]
    NoMajor(PathBuf, &'static str),
}

/// Looks below `root`, which is `/` but for tests.
pub(super) fn look(root: &Path) -> Result<Found, NoGpu> {
    let directory = root.join("proc/driver/nvidia/gpus");
    let addresses = names(&directory);
    if addresses.is_empty() {
        let on_the_bus = on_the_bus(root);
        return Err(match on_the_bus.is_empty() {
            true => NoGpu::None(directory),
            false => NoGpu::NoDriver { addresses: on_the_bus, directory },
        });
    }
    let devices = root.join("proc/devices");
    let numbers = read(&devices)?;
    let major = |name: &'static str| major(&numbers, name);
    let own = major("nvidia").or_else(|| major("nvidia-frontend"));
    let own = own.ok_or_else(|| NoGpu::NoMajor(devices.clone(), "nvidia"))?;
    let memory = major("nvidia-uvm").ok_or_else(|| NoGpu::NoMajor(devices.clone(), "nvidia-uvm"))?;
    let file = |name: String, major, minor| Device { path: Path::new("/dev").join(name), major, minor };
    let mut gpus = Vec::new();
    for address in addresses {
        let minor = minor(&directory.join(address).join("information"))?;
        gpus.push(file(format!("nvidia{minor}"), own, minor));
    }
    let controls = vec![
        file("nvidiactl".to_owned(), own, 255),
        file("nvidia-uvm".to_owned(), memory, 0),
        file("nvidia-uvm-tools".to_owned(), memory, 1),
    ];
    Ok(Found { gpus, controls })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn read(path: &Path) -> Result<String, NoGpu> {
    fs::read_to_string(path).map_err(|error| NoGpu::Read { path: path.to_owned(), reason: error.to_string() })
}

fn minor(path: &Path) -> Result<u32, NoGpu> {
    let text = read(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Device Minor:"));
    let number = line.and_then(|number| number.trim().parse().ok());
    number.ok_or_else(|| NoGpu::NoMinor { path: path.to_owned() })
}

/// Character devices come first in this file.
fn major(devices: &str, name: &str) -> Option<u32> {
    let characters = devices.lines().take_while(|line| !line.starts_with("Block"));
    let mut found = characters.filter_map(|line| line.trim().split_once(' ')).filter(|(_, of)| *of == name);
    found.next()?.0.parse().ok()
}

/// Addresses of NVIDIA's display controllers.
fn on_the_bus(root: &Path) -> Vec<String> {
    let bus = root.join("sys/bus/pci/devices");
    let says = |address: &str, file: &str, begin: &str| {
        fs::read_to_string(bus.join(address).join(file)).is_ok_and(|text| text.starts_with(begin))
    };
    let mut all = names(&bus);
    all.retain(|address| says(address, "vendor", "0x10de") && says(address, "class", "0x03"));
    all
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine with GPUs of these minor numbers, in the order of their addresses.
    pub fn machine(minors: &[u32]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (place, minor) in minors.iter().enumerate() {
            let address = format!("0000:{:02x}:00.0", 4 + place);
            let directory = root.path().join("proc/driver/nvidia/gpus").join(address);
            fs::create_dir_all(&directory).unwrap();
            let text = format!(
                "Model: \t\t Tesla M60\nIRQ:   \t\t 40\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
            );
            fs::write(directory.join("information"), text).unwrap();
        }
        fs::create_dir_all(root.path().join("proc")).unwrap();
        let devices = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n236 nvidia-uvm\n\nBlock devices:\n  8 sd\n";
        fs::write(root.path().join("proc/devices"), devices).unwrap();
        root
    }

    pub fn on_bus(root: &Path, address: &str, vendor: &str, class: &str) {
        let directory = root.join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(directory.join("class"), format!("{class}\n")).unwrap();
    }

    fn device(path: &str, major: u32, minor: u32) -> Device {
        Device { path: path.into(), major, minor }
    }

    #[test]
    fn gpus_are_in_the_order_of_their_addresses() {
        let root = machine(&[1, 0]);
        let found = look(root.path()).unwrap();
        assert_eq!(found.gpus, [device("/dev/nvidia1", 195, 1), device("/dev/nvidia0", 195, 0)]);
        let controls = [
            device("/dev/nvidiactl", 195, 255),
            device("/dev/nvidia-uvm", 236, 0),
            device("/dev/nvidia-uvm-tools", 236, 1),
        ];
        assert_eq!(found.controls, controls);
    }

    #[test]
    fn a_machine_without_one_says_why() {
        let root = machine(&[]);
        on_bus(root.path(), "0000:00:02.0", "0x8086", "0x030000");
        on_bus(root.path(), "0000:04:00.1", "0x10de", "0x040300");
        let error = look(root.path()).unwrap_err();
        assert!(matches!(error, NoGpu::None(_)) && error.to_string().contains("there is no NVIDIA GPU"));
        on_bus(root.path(), "0000:04:00.0", "0x10de", "0x030200");
        let error = look(root.path()).unwrap_err().to_string();
        assert!(error.starts_with("the NVIDIA GPU at 0000:04:00.0 has no driver"), "{error}");
    }

    #[test]
    fn a_driver_that_says_too_little_is_named() {
        let root = machine(&[0]);
        let information = root.path().join("proc/driver/nvidia/gpus/0000:04:00.0/information");
        fs::write(&information, "Model: x\n").unwrap();
        assert_eq!(look(root.path()), Err(NoGpu::NoMinor { path: information }));
        let root = machine(&[0]);
        fs::write(root.path().join("proc/devices"), "Character devices:\n195 nvidia\n").unwrap();
        let error = look(root.path()).unwrap_err();
        assert!(matches!(error, NoGpu::NoMajor(_, "nvidia-uvm")), "{error}");
    }
}
