//! What this machine has to offer: what `--resources` says, and for cpus, memory, disk and ports that it
//! does not name, what is found, by the same rules as Mesos: some memory and disk is left for the system.

use std::path::{Path, PathBuf};

use crate::gpus::{GpuError, Gpus};

use tepui_api::resources::{
    AttributeError, ResourceError, Resources, TextError, parse_attributes, parse_list,
};
use tepui_api::v1::{self, Attribute};

/// The ports that are offered unless others are named: Mesos' default.
const PORTS: &str = "ports:[31000-32000]";
const MEGABYTE: u64 = 1 << 20;
const GIGABYTE: u64 = 1 << 30;

/// Why the resources or attributes of the agent are not known.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// Not the form of resources.
    #[error("--resources is not a list of resources: {0}")]
    Resources(#[from] TextError),
    /// Resources that cannot be.
    #[error("--resources names something impossible: {0}")]
    Invalid(#[from] ResourceError),
    /// Not the form of attributes.
    #[error("--attributes is not a list of attributes: {0}")]
    Attributes(#[from] AttributeError),
    /// GPUs that are not there, or not those that the flags say.
    #[error(transparent)]
    Gpus(#[from] GpuError),
    /// The file is not there.
    #[error("--resources names the file {path}, which cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The machine does not tell.
    #[error("cannot find out how much {what} this machine has, so name it in --resources: {source}")]
    Machine {
        /// Which resource.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// The agent's resources. `text` is the value of `--resources`: `name:value;…`, a JSON list, or an absolute path of a file
/// that holds either.
///
/// # Errors
/// When the text is wrong, or something that it does not name cannot be found out.
pub fn detect(
    text: Option<&str>,
    default_role: &str,
    work_dir: &Path,
    gpus: Gpus,
) -> Result<Vec<v1::Resource>, DetectError> {
    let text = match text.map(str::trim) {
        Some(path) if path.starts_with('/') => {
            std::fs::read_to_string(path).map_err(|source| DetectError::File { path: path.into(), source })?
        }
        other => other.unwrap_or_default().to_owned(),
    };
    // A resource of amount 0 is one that is named: it is not looked for, and not offered either.
    let named = parse_list(&text, default_role)?;
    let is_named = |name: &str| named.iter().any(|resource| resource.name == name);
    let mut found = Vec::new();
    if !is_named("cpus") {
        found.push(format!("cpus:{}", cpus()?));
    }
    if !is_named("mem") {
        found.push(format!("mem:{}", offered(memory()?, 2 * GIGABYTE, GIGABYTE)));
    }
    if !is_named("disk") {
        found.push(format!("disk:{}", offered(disk(work_dir)?, 10 * GIGABYTE, 5 * GIGABYTE)));
    }
    if !is_named("ports") {
        found.push(PORTS.to_owned());
    }
    let named_gpus = is_named("gpus").then(|| {
        let amounts = named.iter().filter(|one| one.name == "gpus").filter_map(|one| one.scalar.as_ref());
        amounts.map(|scalar| scalar.value).sum::<f64>()
    });
    if let Some(count) = gpus.to_offer(named_gpus)? {
        found.push(format!("gpus:{count}"));
    }
    let mut all = named;
    all.extend(parse_list(&found.join(";"), default_role)?);
    Ok(Resources::from_wire(&all)?.to_wire())
}

/// The agent's attributes, from the value of `--attributes`: `name:value;…`.
///
/// # Errors
/// When the text is wrong.
pub fn attributes(text: Option<&str>) -> Result<Vec<Attribute>, DetectError> {
    Ok(parse_attributes(text.unwrap_or_default())?)
}

/// Megabytes to offer of this many bytes: all but `reserve`, or half where there is little.
fn offered(total: u64, plenty: u64, reserve: u64) -> u64 {
    let bytes = if total >= plenty { total - reserve } else { total / 2 };
    bytes / MEGABYTE
}

fn cpus() -> Result<usize, DetectError> {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
        .map_err(|errno| DetectError::Machine { what: "cpus", source: errno.into() })?;
    Ok(online.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(1))
}

/// Bytes of memory.
fn memory() -> Result<u64, DetectError> {
    let info = nix::sys::sysinfo::sysinfo()
        .map_err(|errno| DetectError::Machine { what: "mem", source: errno.into() })?;
    Ok(info.ram_total())
}

/// Bytes of the file system that the directory is on.
fn disk(directory: &Path) -> Result<u64, DetectError> {
    let stat = nix::sys::statvfs::statvfs(directory)
        .map_err(|errno| DetectError::Machine { what: "disk", source: errno.into() })?;
    Ok(stat.blocks() * stat.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(text: &str) -> Resources {
        let wire = detect(Some(text), "*", Path::new("/"), Gpus::default()).unwrap();
        Resources::from_wire(&wire).unwrap()
    }

    #[test]
    fn what_is_named_is_taken_and_the_rest_is_found() {
        let resources = detected("cpus:0.5;mem:100");
        assert_eq!(resources.cpus().map(|c| c.as_f64()), Some(0.5));
        assert_eq!(resources.mem().map(|m| m.0), Some(100));
        assert!(resources.disk().unwrap().0 > 0);
        assert_eq!(resources.ports().unwrap().count(), 1001);
    }

    #[test]
    fn what_is_named_with_nothing_is_not_offered() {
        let resources = detected("cpus:1;disk:0;ports:[]");
        assert_eq!((resources.disk(), resources.ports()), (None, None));
    }

    #[test]
    fn nothing_named_means_all_is_found() {
        let wire = detect(None, "*", Path::new("/"), Gpus::default()).unwrap();
        let names: std::collections::BTreeSet<_> = wire.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["cpus", "disk", "mem", "ports"]);
    }

    #[test]
    fn a_file_and_json_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":3}}]"#;
        std::fs::write(&path, json).unwrap();
        assert_eq!(detected(path.to_str().unwrap()).cpus().map(|c| c.as_f64()), Some(3.0));
        assert!(matches!(
            detect(Some("/no/such"), "*", Path::new("/"), Gpus::default()),
            Err(DetectError::File { .. })
        ));
        assert!(matches!(
            detect(Some("cpus"), "*", Path::new("/"), Gpus::default()),
            Err(DetectError::Resources(_))
        ));
    }

    #[test]
    fn some_is_left_for_the_system() {
        assert_eq!(offered(8 * GIGABYTE, 2 * GIGABYTE, GIGABYTE), 7 * 1024);
        assert_eq!(offered(GIGABYTE, 2 * GIGABYTE, GIGABYTE), 512);
    }
}
