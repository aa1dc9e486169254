//! `linux/seccomp`: containers make only the system calls that a profile lets them.
//!
//! Reads profiles in Docker's JSON format from `--seccomp_config_dir` and puts their rules into the runtime spec; the agent compiles
//! them, and the shim has the kernel install them right before the program starts. Who has which profile:
//!
//! | `linux_info.seccomp` | profile |
//! | --- | --- |
//! | not set | `--seccomp_profile_name`, or none without that |
//! | `profile_name` | that one |
//! | `unconfined: true` | none |
//! | both, or neither | the launch is refused |
//!
//! Rules that depend on capabilities go by the container's bounding set, so `linux/capabilities` acts before. Rules: `seccomp(2)`; Mesos'
//! `docs/isolators/linux-seccomp.md`. How profiles become filters: [`crate::seccomp`].

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{Capabilities, LinuxSeccomp, Spec};

use super::linux_capabilities;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};
use crate::seccomp::profile::{Host, Profile};
use crate::seccomp::{self, SeccompError};

/// The flags of `linux/seccomp`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeccompSettings {
    /// `--seccomp_config_dir`: where the profiles are.
    pub config_dir: Option<PathBuf>,
    /// `--seccomp_profile_name`: the profile of containers that name none, below that directory.
    pub profile_name: Option<String>,
}

/// A profile cannot be used.
#[derive(Debug, thiserror::Error)]
enum ProfileError {
    #[error("the seccomp profile '{0}' is not below --seccomp_config_dir: give a plain relative path")]
    Outside(String),
    #[error("the seccomp profile {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the seccomp profile {} cannot be used: {source}", path.display())]
    Content { path: PathBuf, source: SeccompError },
}

struct Seccomp {
    directory: PathBuf,
    /// With its file.
    default: Option<(PathBuf, Profile)>,
    host: Host,
    /// What a container can have at most.
    bounding: Capabilities,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(MakeError::Host("only root can have filters installed without no_new_privs".to_owned()));
    }
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| MakeError::Host(format!("/proc/self/status cannot be read: {error}")))?;
    if !status.lines().any(|line| line.starts_with("Seccomp:")) {
        return Err(MakeError::Host(
            "the kernel is built without seccomp (CONFIG_SECCOMP_FILTER)".to_owned(),
        ));
    }
    let host = Host::detect().map_err(|error| MakeError::Host(error.to_string()))?;
    let seccomp = Seccomp::new(&parts.settings.seccomp, host, linux_capabilities::bounding_of(&status))?;
    Ok(Arc::new(seccomp))
}

impl Seccomp {
    /// The default profile is read once, so that what is wrong with it is said before any container starts.
    fn new(settings: &SeccompSettings, host: Host, bounding: Capabilities) -> Result<Self, MakeError> {
        let Some(directory) = settings.config_dir.clone() else {
            return Err(MakeError::Setting(
                "it needs --seccomp_config_dir, the directory of profiles".to_owned(),
            ));
        };
        if !directory.is_dir() {
            let text = format!("--seccomp_config_dir: {} is not a directory", directory.display());
            return Err(MakeError::Setting(text));
        }
        let mut this = Self { directory, default: None, host, bounding };
        if let Some(name) = &settings.profile_name {
            let wrong = |error: ProfileError| MakeError::Setting(format!("--seccomp_profile_name: {error}"));
            let (path, profile) = this.load(name).map_err(wrong)?;
            let rules = this.rules(&path, &profile, &this.bounding).map_err(wrong)?;
            seccomp::compile(&rules, &[])
                .map_err(|source| wrong(ProfileError::Content { path: path.clone(), source }))?;
            this.default = Some((path, profile));
        }
        Ok(this)
    }

    fn load(&self, name: &str) -> Result<(PathBuf, Profile), ProfileError> {
        let relative = Path::new(name);
        let plain =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if name.is_empty() || !plain {
            return Err(ProfileError::Outside(name.to_owned()));
        }
        let path = self.directory.join(relative);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ProfileError::Read { path: path.clone(), source })?;
        match Profile::parse(&text) {
            Ok(profile) => Ok((path, profile)),
            Err(source) => Err(ProfileError::Content { path, source }),
        }
    }

    fn rules(
        &self,
        path: &Path,
        profile: &Profile,
        bounding: &Capabilities,
    ) -> Result<LinuxSeccomp, ProfileError> {
        let (rules, passed_over) = profile
            .resolve(&self.host, bounding)
            .map_err(|source| ProfileError::Content { path: path.to_owned(), source })?;
        if !passed_over.is_empty() {
            let names = passed_over.join(", ");
            tracing::warn!(profile = %path.display(), %names, "A seccomp profile allows system calls that are not known here; they are left to its default action.");
        }
        Ok(rules)
    }

    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        let linux = context.container.as_ref().and_then(|container| container.linux_info.as_ref());
        let asked = linux.and_then(|linux| linux.seccomp.as_ref());
        let own;
        let (path, profile) = match asked.map(|asked| (asked.unconfined(), asked.profile_name.as_deref())) {
            None => match &self.default {
                Some(default) => default,
                None => return Ok(()),
            },
            Some((true, None)) => return Ok(()),
            Some((true, Some(_))) => {
                return Err(refused(
                    "'seccomp.profile_name' cannot be given together with 'seccomp.unconfined'",
                ));
            }
            Some((false, None)) => {
                return Err(refused("'seccomp' needs a 'profile_name', or 'unconfined' to be true"));
            }
            Some((false, Some(name))) => {
                own = self.load(name).map_err(|error| refused(&error.to_string()))?;
                &own
            }
        };
        let bounding = bounding(&contribution.spec).unwrap_or_else(|| self.bounding.clone());
        let rules = self.rules(path, profile, &bounding).map_err(|error| refused(&error.to_string()))?;
        let mut linux = contribution.spec.linux().clone().unwrap_or_default();
        linux.set_seccomp(Some(rules));
        contribution.spec.set_linux(Some(linux));
        Ok(())
    }
}

fn refused(why: &str) -> IsolatorError {
    IsolatorError::Refused(why.to_owned())
}

/// What the container is limited to, if it is.
fn bounding(spec: &Spec) -> Option<Capabilities> {
    spec.process().as_ref()?.capabilities().as_ref()?.bounding().clone()
}

impl Isolator for Seccomp {
    fn name(&self) -> &str {
        "linux/seccomp"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(Seccomp::prepare(self, context, contribution))
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capability, LinuxCapabilities};
    use tepui_api::v1::{ContainerInfo, LinuxInfo, SeccompInfo};

    use super::super::tests::{context, empty_spec};
    use super::*;

    const DENIES_MOUNT: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;
    const DENIES_ALL: &str = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": []}"#;

    struct Setup(tempfile::TempDir);

    impl Setup {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("mount.json"), DENIES_MOUNT).unwrap();
            std::fs::create_dir(directory.path().join("more")).unwrap();
            std::fs::write(directory.path().join("more/all.json"), DENIES_ALL).unwrap();
            std::fs::write(directory.path().join("wrong.json"), r#"{"defaultAction": "ALLOW"}"#).unwrap();
            Self(directory)
        }

        fn isolator(&self, default: Option<&str>) -> Result<Seccomp, MakeError> {
            let settings = SeccompSettings {
                config_dir: Some(self.0.path().to_owned()),
                profile_name: default.map(str::to_owned),
            };
            let bounding = [Capability::SysAdmin].into_iter().collect();
            Seccomp::new(&settings, Host { arch: "amd64", kernel: (6, 1) }, bounding)
        }

        /// The default action's name and the number of rules, if there is a filter.
        fn prepared(
            &self,
            default: Option<&str>,
            asked: Option<SeccompInfo>,
            spec: Spec,
        ) -> Result<Option<(String, usize)>, String> {
            let linux = LinuxInfo { seccomp: asked, ..LinuxInfo::default() };
            let info = ContainerInfo { linux_info: Some(linux), ..ContainerInfo::default() };
            let mut contribution = Contribution { spec, ..Contribution::default() };
            let isolator = self.isolator(default).unwrap();
            isolator.prepare(&context(Some(info)), &mut contribution).map_err(|error| error.to_string())?;
            let rules = contribution.spec.linux().as_ref().unwrap().seccomp().clone();
            Ok(rules
                .map(|rules| (rules.default_action().to_string(), rules.syscalls().as_ref().unwrap().len())))
        }
    }

    fn asks(name: Option<&str>, unconfined: Option<bool>) -> Option<SeccompInfo> {
        Some(SeccompInfo { profile_name: name.map(str::to_owned), unconfined })
    }

    #[test]
    fn the_task_decides_as_in_the_table() {
        let setup = Setup::new();
        let prepared = |default, asked| setup.prepared(default, asked, empty_spec());
        let allow = Ok(Some(("SCMP_ACT_ALLOW".to_owned(), 0)));
        let kill = Ok(Some(("SCMP_ACT_KILL_PROCESS".to_owned(), 0)));
        assert_eq!(prepared(None, None), Ok(None));
        assert_eq!(prepared(Some("mount.json"), None), allow);
        assert_eq!(prepared(Some("mount.json"), asks(Some("more/all.json"), Some(false))), kill);
        assert_eq!(prepared(None, asks(Some("more/all.json"), None)), kill);
        assert_eq!(prepared(Some("mount.json"), asks(None, Some(true))), Ok(None));
        for (asked, words) in [
            (asks(Some("mount.json"), Some(true)), "together with"),
            (asks(None, None), "needs a 'profile_name'"),
            (asks(None, Some(false)), "needs a 'profile_name'"),
            (asks(Some("absent.json"), None), "absent.json cannot be read"),
            (asks(Some("wrong.json"), None), "wrong.json cannot be used: defaultAction"),
            (asks(Some("../etc/passwd"), None), "is not below --seccomp_config_dir"),
            (asks(Some("/etc/passwd"), None), "is not below --seccomp_config_dir"),
            (asks(Some(""), None), "is not below"),
        ] {
            let error = prepared(Some("mount.json"), asked).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn rules_go_by_the_container_s_bounding_set() {
        let setup = Setup::new();
        let mut capabilities = LinuxCapabilities::default();
        capabilities.set_bounding(Some([Capability::Chown].into_iter().collect()));
        let mut spec = empty_spec();
        super::super::process(&mut spec).unwrap().set_capabilities(Some(capabilities));
        let rules = setup.prepared(Some("mount.json"), None, spec).unwrap().unwrap();
        assert_eq!(rules.1, 1, "mount is denied to those without CAP_SYS_ADMIN");
    }

    #[test]
    fn a_default_that_cannot_be_used_is_an_error_at_the_start() {
        let setup = Setup::new();
        let error = |default: &str| match setup.isolator(Some(default)) {
            Err(MakeError::Setting(text)) => text,
            other => panic!("{:?}", other.err()),
        };
        assert!(error("wrong.json").starts_with("--seccomp_profile_name: the seccomp profile"));
        assert!(error("absent.json").contains("cannot be read"));
        assert!(error("..").contains("not below"));
        let none = SeccompSettings { config_dir: None, profile_name: Some("x".to_owned()) };
        let made = Seccomp::new(&none, Host { arch: "amd64", kernel: (6, 1) }, Capabilities::new());
        assert!(matches!(made, Err(MakeError::Setting(text)) if text.contains("needs --seccomp_config_dir")));
    }
}
