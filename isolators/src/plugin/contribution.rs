//! What a plugin may add to a container. All of an answer is checked before any of it is taken.
//!
//! A plugin runs as root, so these are no walls against a malicious one: they keep a mistaken one from making a container that no longer is
//! one, or from leaving something on the host.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Map, Value};

use super::proto;
use crate::cgroups::{Cgroups, Controller, Version, files};
use crate::isolator::{BindMount, ContainerContext, ContainerId, Contribution};

/// Where nothing is mounted: the container's own view of the kernel and its devices.
const FORBIDDEN: [&str; 3] = ["/proc", "/sys", "/dev"];
/// The exception: has files of programs in it.
const SHARED_MEMORY: &str = "/dev/shm";
/// Variables that are the agent's to set.
const RESERVED: [&str; 2] = ["MESOS_", "LIBPROCESS_"];
/// More mounts than that are a mistake.
const MOST_MOUNTS: usize = 256;
/// What may be in `oci_spec`, for people.
const SPEC_PARTS: &str =
    "annotations, process.rlimits, process.noNewPrivileges, linux.maskedPaths and linux.readonlyPaths";

/// A contribution without anything forbidden in it.
#[derive(Debug, PartialEq)]
pub(super) struct Checked {
    environment: BTreeMap<String, String>,
    mounts: Vec<BindMount>,
    spec: SpecParts,
    oom_score_adj: Option<i32>,
    throttles: Vec<Throttle>,
}

/// Additions to the runtime spec.
#[derive(Debug, Default, PartialEq)]
struct SpecParts {
    annotations: BTreeMap<String, String>,
    rlimits: Vec<Value>,
    no_new_privileges: bool,
    masked: Vec<String>,
    read_only: Vec<String>,
}

/// Limits on one disk.
#[derive(Debug, PartialEq)]
struct Throttle {
    /// `MAJOR:MINOR`.
    device: String,
    /// What is limited, as v1 has it in the names of its files and v2 in its keys, and to how much.
    limits: Vec<(&'static str, &'static str, u64)>,
}

/// Checks an answer. `sandbox` is as the container sees it.
///
/// # Errors
/// In words, when something in it is not allowed.
pub(super) fn check(
    answer: proto::PrepareResponse,
    context: &ContainerContext,
    sandbox: &Path,
) -> Result<Checked, String> {
    answer.environment.iter().try_for_each(|(name, value)| variable(name, value))?;
    if answer.mounts.len() > MOST_MOUNTS {
        return Err(format!("{} mounts are more than {MOST_MOUNTS}", answer.mounts.len()));
    }
    let mounts = answer.mounts.into_iter().map(|mount| bind(mount, context, sandbox));
    let mounts = mounts.collect::<Result<_, _>>()?;
    if let Some(score) = answer.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return Err(format!("an oom_score_adj of {score} is not between -1000 and 1000"));
    }
    Ok(Checked {
        environment: answer.environment,
        mounts,
        spec: spec_parts(&answer.oci_spec)?,
        oom_score_adj: answer.oom_score_adj,
        throttles: answer.throttles.into_iter().map(throttle).collect::<Result<_, _>>()?,
    })
}

// === impl Checked ===

impl Checked {
    /// Adds it to what is being composed, and sets the limits in the container's cgroup.
    ///
    /// # Errors
    /// In words, when the kernel does not take a limit.
    pub fn add_to(
        self,
        contribution: &mut Contribution,
        id: &ContainerId,
        cgroups: Option<&Cgroups>,
    ) -> Result<(), String> {
        for throttle in &self.throttles {
            let cgroups = cgroups.ok_or("limits on devices need cgroups, and the host has none")?;
            throttle.set(cgroups, id, contribution).map_err(|error| error.to_string())?;
        }
        self.spec.add_to(&mut contribution.spec)?;
        contribution.environment.extend(self.environment);
        contribution.mounts.extend(self.mounts);
        contribution.oom_score_adj = self.oom_score_adj.or(contribution.oom_score_adj);
        Ok(())
    }
}

// === impl SpecParts ===

impl SpecParts {
    /// By way of JSON: the types of the spec have no way to add a limit of which only the text is known.
    fn add_to(self, spec: &mut Spec) -> Result<(), String> {
        if self == Self::default() {
            return Ok(());
        }
        let wrong = |error: serde_json::Error| format!("oci_spec does not fit the container's: {error}");
        let mut json = serde_json::to_value(&*spec).map_err(wrong)?;
        if !self.annotations.is_empty() {
            let annotations = object(&mut json, "annotations")?;
            annotations.extend(self.annotations.into_iter().map(|(key, value)| (key, Value::String(value))));
        }
        if !self.rlimits.is_empty() || self.no_new_privileges {
            let process = object(&mut json, "process")?;
            // What the types of the spec ask for; the agent completes it.
            process.entry("cwd").or_insert_with(|| "/".into());
            if !process.contains_key("user") {
                process.insert("user".into(), serde_json::json!({"uid": 0, "gid": 0}));
            }
            if self.no_new_privileges {
                process.insert("noNewPrivileges".into(), true.into());
            }
            let limits = list(process, "rlimits")?;
            for limit in self.rlimits {
                limits.retain(|other| other["type"] != limit["type"]);
                limits.push(limit);
            }
        }
        let linux = object(&mut json, "linux")?;
        for (key, more) in [("maskedPaths", self.masked), ("readonlyPaths", self.read_only)] {
            if !more.is_empty() {
                list(linux, key)?.extend(more.into_iter().map(Value::String));
            }
        }
        *spec = serde_json::from_value(json).map_err(wrong)?;
        Ok(())
    }
}

fn object<'a>(json: &'a mut Value, key: &str) -> Result<&'a mut Map<String, Value>, String> {
    let json = json.as_object_mut().ok_or("the container's spec is no object")?;
    let entry = json.entry(key).or_insert_with(|| Value::Object(Map::new()));
    entry.as_object_mut().ok_or_else(|| format!("{key} of the container's spec is no object"))
}

fn list<'a>(json: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, String> {
    let entry = json.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    entry.as_array_mut().ok_or_else(|| format!("{key} of the container's spec is no list"))
}

// === impl Throttle ===

impl Throttle {
    fn set(
        &self,
        cgroups: &Cgroups,
        id: &ContainerId,
        contribution: &mut Contribution,
    ) -> Result<(), crate::cgroups::CgroupError> {
        let joined = cgroups.join(id, Controller::Blkio, contribution)?;
        match joined.version {
            Version::V1 => self.limits.iter().try_for_each(|(v1, _, limit)| {
                let file = format!("blkio.throttle.{v1}_device");
                files::write(&joined.dir.join(file), format!("{} {limit}", self.device))
            }),
            Version::V2 => {
                let limits = self.limits.iter().map(|(_, v2, limit)| format!(" {v2}={limit}"));
                files::write(&joined.dir.join("io.max"), self.device.clone() + &limits.collect::<String>())
            }
        }
    }
}

fn variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(format!("'{name}' cannot be a variable of the environment"));
    }
    match RESERVED.iter().find(|start| name.starts_with(**start)) {
        Some(start) => {
            Err(format!("the variable {name} is the agent's to set, as all that begin with {start}"))
        }
        None => Ok(()),
    }
}

fn bind(mount: proto::BindMount, context: &ContainerContext, sandbox: &Path) -> Result<BindMount, String> {
    let source = plain(Path::new(&mount.source)).filter(|path| path.is_absolute()).ok_or_else(|| {
        format!("the source '{}' of a mount is not an absolute path without '..'", mount.source)
    })?;
    // The source itself, and not a link that may lead elsewhere by the time of the mount.
    let source = source
        .canonicalize()
        .map_err(|error| format!("the source {} of a mount: {error}", source.display()))?;
    let given = plain(Path::new(&mount.target))
        .filter(|path| !path.as_os_str().is_empty())
        .ok_or_else(|| format!("the target '{}' of a mount is not a path without '..'", mount.target))?;
    let target = sandbox.join(&given);
    let forbidden = |why: &str| Err(format!("nothing may be mounted on {}, {why}", target.display()));
    if target == Path::new("/") || target == sandbox {
        return forbidden("which the container has from the agent");
    }
    let inner_shared_memory = target != Path::new(SHARED_MEMORY) && target.starts_with(SHARED_MEMORY);
    if let Some(top) = FORBIDDEN.iter().find(|top| target.starts_with(top))
        && !inner_shared_memory
    {
        return forbidden(&format!("as {top} is the container's view of the kernel"));
    }
    if sandbox.starts_with(&target) {
        return forbidden("as the sandbox is in it");
    }
    // It would be made on the host, and left there.
    if !context.has_rootfs && !target.starts_with(sandbox) && !target.exists() {
        return forbidden("which is not there on the host, whose file system the container has");
    }
    Ok(BindMount { source, target, recursive: mount.recursive, read_only: mount.read_only })
}

/// The path without `.`; `None` if it has `..` in it, or a byte that ends a path.
fn plain(path: &Path) -> Option<PathBuf> {
    let fine = |part: &Component| matches!(part, Component::RootDir | Component::Normal(_));
    let clean: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    let nul = path.as_os_str().as_encoded_bytes().contains(&0);
    (clean.components().all(|part| fine(&part)) && !nul).then_some(clean)
}

fn spec_parts(text: &str) -> Result<SpecParts, String> {
    let mut parts = SpecParts::default();
    if text.trim().is_empty() {
        return Ok(parts);
    }
    let json: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("oci_spec is not a JSON object: {error}"))?;
    for (key, value) in json {
        let strange =
            |path: &str| format!("{path} of oci_spec is not among what a plugin may add: {SPEC_PARTS}");
        match (key.as_str(), value) {
            ("annotations", Value::Object(all)) => {
                for (key, value) in all {
                    let value = value.as_str().ok_or("annotations of oci_spec must be texts")?.to_owned();
                    parts.annotations.insert(key, value);
                }
            }
            (section @ ("process" | "linux"), Value::Object(all)) => {
                for (key, value) in all {
                    match (section, key.as_str()) {
                        ("process", "rlimits") => parts.rlimits = rlimits(value)?,
                        ("process", "noNewPrivileges") if value == Value::Bool(true) => {
                            parts.no_new_privileges = true;
                        }
                        ("process", "noNewPrivileges") => {
                            return Err("noNewPrivileges of oci_spec may only be true".to_owned());
                        }
                        ("linux", "maskedPaths") => parts.masked = paths(&key, value)?,
                        ("linux", "readonlyPaths") => parts.read_only = paths(&key, value)?,
                        _ => return Err(strange(&format!("{section}.{key}"))),
                    }
                }
            }
            ("annotations" | "process" | "linux", _) => {
                return Err(format!("{key} of oci_spec is no object"));
            }
            _ => return Err(strange(&key)),
        }
    }
    Ok(parts)
}

fn rlimits(value: Value) -> Result<Vec<Value>, String> {
    // By the spec's own type, so that a limit that does not exist is noticed here.
    let limits: Vec<oci_spec::runtime::PosixRlimit> = serde_json::from_value(value)
        .map_err(|error| format!("process.rlimits of oci_spec is not understood: {error}"))?;
    let above = limits.iter().find(|limit| limit.soft() > limit.hard());
    if let Some(limit) = above {
        return Err(format!("the rlimit {} has a soft limit above the hard one", limit.typ()));
    }
    limits.iter().map(|limit| serde_json::to_value(limit).map_err(|error| error.to_string())).collect()
}

fn paths(key: &str, value: Value) -> Result<Vec<String>, String> {
    let paths: Vec<String> = serde_json::from_value(value)
        .map_err(|error| format!("linux.{key} of oci_spec is not a list of paths: {error}"))?;
    match paths.iter().find(|path| !plain(Path::new(path)).is_some_and(|path| path.is_absolute())) {
        Some(path) => {
            Err(format!("'{path}' in linux.{key} of oci_spec is not an absolute path without '..'"))
        }
        None => Ok(paths),
    }
}

fn throttle(throttle: proto::Throttle) -> Result<Throttle, String> {
    let device = disk(&throttle.device)?;
    let limits: Vec<_> = [
        ("read_bps", "rbps", throttle.read_bps),
        ("write_bps", "wbps", throttle.write_bps),
        ("read_iops", "riops", throttle.read_iops),
        ("write_iops", "wiops", throttle.write_iops),
    ]
    .into_iter()
    .filter_map(|(v1, v2, limit)| Some((v1, v2, limit?)))
    .collect();
    if limits.is_empty() || limits.iter().any(|(_, _, limit)| *limit == 0) {
        return Err(format!("the limits on device {} are not numbers above 0", throttle.device));
    }
    Ok(Throttle { device, limits })
}

/// The disk that a block device is, or is a partition of.
fn disk(device: &str) -> Result<String, String> {
    let numbers = device.split_once(':').and_then(|(major, minor)| {
        Some(format!("{}:{}", major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let numbers = numbers.ok_or_else(|| format!("the device '{device}' is not of the form MAJOR:MINOR"))?;
    let here = PathBuf::from(format!("/sys/dev/block/{numbers}"));
    if !here.exists() {
        return Err(format!(
            "{numbers} is no block device of this host, so its reads and writes cannot be limited"
        ));
    }
    if !here.join("partition").exists() {
        return Ok(numbers);
    }
    let disk = here.canonicalize().ok().and_then(|partition| {
        let text = std::fs::read_to_string(partition.parent()?.join("dev")).ok()?;
        Some(text.trim().to_owned())
    });
    disk.ok_or_else(|| format!("the disk of the partition {numbers} cannot be found"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::builtin::tests::{context, empty_spec};

    fn checked(answer: proto::PrepareResponse, rootfs: bool) -> Result<Checked, String> {
        let sandbox = if rootfs { "/mnt/mesos/sandbox" } else { "/var/sandbox" };
        let context =
            ContainerContext { has_rootfs: rootfs, sandbox: "/var/sandbox".into(), ..context(None) };
        check(answer, &context, Path::new(sandbox))
    }

    fn mount(source: &str, target: &str) -> proto::PrepareResponse {
        let mount = proto::BindMount {
            source: source.into(),
            target: target.into(),
            recursive: false,
            read_only: true,
        };
        proto::PrepareResponse { mounts: vec![mount], ..Default::default() }
    }

    fn spec(text: &str) -> proto::PrepareResponse {
        proto::PrepareResponse { oci_spec: text.to_owned(), ..Default::default() }
    }

    #[test]
    fn mounts_go_where_they_do_no_harm() {
        for (rootfs, given, target) in [
            (false, "data", "/var/sandbox/data"),
            (false, "./data/x", "/var/sandbox/data/x"),
            (true, "data", "/mnt/mesos/sandbox/data"),
            (true, "/new/place", "/new/place"),
            (false, "/usr/lib", "/usr/lib"),
            (true, "/dev/shm/x", "/dev/shm/x"),
        ] {
            let checked = checked(mount("/usr", given), rootfs).unwrap();
            assert_eq!(checked.mounts[0].target, Path::new(target), "{given}");
            assert!(checked.mounts[0].read_only);
        }
    }

    #[test]
    fn mounts_that_do_harm_are_refused() {
        for (rootfs, source, target, words) in [
            (true, "usr", "x", "absolute"),
            (true, "", "x", "absolute"),
            (true, "/usr/../etc", "x", "'..'"),
            (true, "/no/such/thing", "x", "No such file"),
            (true, "/usr", "", "not a path"),
            (true, "/usr", "../x", "'..'"),
            (true, "/usr", ".", "not a path"),
            (true, "/usr", ".", "not a path"),
            (true, "/usr", "/proc", "/proc is"),
            (true, "/usr", "/proc/sys/kernel", "/proc is"),
            (true, "/usr", "/./sys", "/sys is"),
            (true, "/usr", "/dev/shm", "/dev is"),
            (true, "/usr", "/dev/null", "/dev is"),
            (true, "/usr", "/mnt/mesos", "the sandbox is in it"),
            (false, "/usr", "/no-such-directory-here/x", "not there on the host"),
        ] {
            let error = checked(mount(source, target), rootfs).unwrap_err();
            assert!(error.contains(words), "{source} on {target}: {error}");
        }
    }

    #[test]
    fn variables_of_the_agent_are_its_own() {
        for (name, value, fine) in [
            ("DATA", "/x", true),
            ("MESOS_TASK_ID", "x", false),
            ("", "x", false),
            ("A=B", "x", false),
            ("A", "\0", false),
        ] {
            let environment = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let answer = proto::PrepareResponse { environment, ..Default::default() };
            assert_eq!(checked(answer, true).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn only_some_parts_of_the_spec_may_be_added_to() {
        for (text, words) in [
            ("[]", "not a JSON object"),
            ("{", "not a JSON object"),
            (r#"{"root":{"path":"/"}}"#, "root of oci_spec is not among"),
            (r#"{"process":{"args":["x"]}}"#, "process.args of oci_spec is not among"),
            (r#"{"process":7}"#, "no object"),
            (r#"{"process":{"noNewPrivileges":false}}"#, "may only be true"),
            (r#"{"process":{"rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}]}}"#, "not understood"),
            (r#"{"process":{"rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":1}]}}"#, "above the hard"),
            (r#"{"linux":{"maskedPaths":["x"]}}"#, "absolute"),
            (r#"{"linux":{"namespaces":[]}}"#, "linux.namespaces of oci_spec is not among"),
            (r#"{"annotations":{"a":1}}"#, "must be texts"),
        ] {
            let error = checked(spec(text), true).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn additions_to_the_spec_are_merged() {
        let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
        contribution.spec.set_process(None);
        let id = ContainerId::new("c");
        for text in [
            r#"{"annotations":{"a":"1"},"process":{"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}]},"linux":{"maskedPaths":["/proc/a"]}}"#,
            r#"{"annotations":{"b":"2"},"process":{"rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":3}],"noNewPrivileges":true},"linux":{"maskedPaths":["/proc/b"]}}"#,
        ] {
            checked(spec(text), true).unwrap().add_to(&mut contribution, &id, None).unwrap();
        }
        let json = serde_json::to_value(&contribution.spec).unwrap();
        assert_eq!(json["annotations"], serde_json::json!({"a": "1", "b": "2"}));
        assert_eq!(
            json["process"]["rlimits"],
            serde_json::json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 3}])
        );
        assert_eq!(json["process"]["noNewPrivileges"], true);
        let masked = json["linux"]["maskedPaths"].as_array().unwrap();
        assert!(masked.ends_with(&["/proc/a".into(), "/proc/b".into()]), "{masked:?}");
    }

    #[test]
    fn scores_and_devices_are_checked() {
        for (score, fine) in [(1001, false), (-1001, false), (1000, true), (-1000, true)] {
            let answer = proto::PrepareResponse { oom_score_adj: Some(score), ..Default::default() };
            assert_eq!(checked(answer, true).is_ok(), fine, "{score}");
        }
        for (device, limit, words) in [
            ("sda", Some(1), "MAJOR:MINOR"),
            ("8", Some(1), "MAJOR:MINOR"),
            ("4095:1048575", Some(1), "no block device"),
            ("0:1", Some(1), "no block device"),
        ] {
            let throttle = proto::Throttle { device: device.into(), read_bps: limit, ..Default::default() };
            let answer = proto::PrepareResponse { throttles: vec![throttle], ..Default::default() };
            let error = checked(answer, true).unwrap_err();
            assert!(error.contains(words), "{device}: {error}");
        }
    }

    #[test]
    fn limits_on_devices_are_above_zero() {
        let Some(device) = std::fs::read_dir("/sys/dev/block").unwrap().flatten().next() else {
            eprintln!("skipped: this machine has no block device");
            return;
        };
        let device = device.file_name().into_string().unwrap();
        for (limit, fine) in [(None, false), (Some(0), false), (Some(1 << 20), true)] {
            let throttle = proto::Throttle { device: device.clone(), read_bps: limit, ..Default::default() };
            let answer = proto::PrepareResponse { throttles: vec![throttle], ..Default::default() };
            assert_eq!(checked(answer, true).is_ok(), fine, "{limit:?}");
        }
    }

    proptest! {
        #[test]
        fn no_target_leads_out_or_over_the_kernel(target in "(/|\\.|\\.\\.|proc|sys|dev|shm|x){0,8}") {
            if let Ok(checked) = checked(mount("/usr", &target), true) {
                let found = &checked.mounts[0].target;
                prop_assert!(found.is_absolute() && found != Path::new("/"));
                prop_assert!(found.components().all(|part| part != Component::ParentDir));
                prop_assert!(!found.starts_with("/proc") && !found.starts_with("/sys"));
                prop_assert!(!found.starts_with("/dev") || found.starts_with("/dev/shm/"));
            }
        }
    }
}
