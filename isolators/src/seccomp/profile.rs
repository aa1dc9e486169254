//! Profiles in Docker's JSON format.
//!
//! A rule applies to a container when all of its `includes` hold and none of its `excludes`: `caps` (the container's bounding set has
//! them all; has any of them), `arches` (the machine's is among them) and `minKernel` (the kernel is that new). Fields that
//! older profiles always have (`archMap`, `includes`, `excludes`, `args`) may be left out, as newer ones do.
//!
//! A name that no architecture has is an error in a rule that restricts: it would restrict nothing. In a rule that allows it is passed over with
//! a warning, so that profiles of a newer Docker can be used: such a call is left to the default action.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall,
};
use serde::Deserialize;

use super::{SeccompError, calls};

/// A profile as it was written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    arch_map: Option<Vec<ArchMap>>,
    architectures: Option<Vec<Arch>>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// The older form, of one call.
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What rules may depend on.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// As Docker writes it, e.g. `amd64`.
    pub arch: &'static str,
    /// Major and minor version.
    pub kernel: (u32, u32),
}

impl Profile {
    /// # Errors
    /// When the text is not such a profile; says which field.
    pub(crate) fn parse(text: &str) -> Result<Self, SeccompError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let profile: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            SeccompError::Json { place: error.path().to_string(), reason: error.into_inner().to_string() }
        })?;
        for (number, rule) in profile.syscalls.iter().enumerate() {
            if rule.calls().next().is_none() {
                return Err(SeccompError::NoNames(number));
            }
        }
        Ok(profile)
    }

    /// The rules for a container with this bounding set on this host, and the names that were passed over.
    ///
    /// # Errors
    /// When a rule, whether or not it applies, has what is not known.
    pub(crate) fn resolve(
        &self,
        host: &Host,
        bounding: &Capabilities,
    ) -> Result<(LinuxSeccomp, Vec<String>), SeccompError> {
        let mut passed_over = Vec::new();
        let mut rules = Vec::new();
        for rule in &self.syscalls {
            let mut names = Vec::new();
            for name in rule.calls() {
                match calls::exists(name) {
                    true => names.push(name.to_owned()),
                    false if rule.allows() => passed_over.push(name.to_owned()),
                    false => return Err(SeccompError::Unknown(name.to_owned())),
                }
            }
            if rule.applies(host, bounding)? && !names.is_empty() {
                rules.push(rule.to_spec(names));
            }
        }
        let mut spec = LinuxSeccomp::default();
        spec.set_default_action(self.default_action);
        spec.set_default_errno_ret(self.default_errno_ret);
        spec.set_architectures(Some(self.architectures(host)));
        spec.set_syscalls(Some(rules));
        Ok((spec, passed_over))
    }

    /// Those that are listed, and those that `archMap` lists for this machine's.
    fn architectures(&self, host: &Host) -> Vec<Arch> {
        let mut all = self.architectures.clone().unwrap_or_default();
        let mapped =
            self.arch_map.iter().flatten().filter(|entry| name(entry.architecture) == Some(host.arch));
        for entry in mapped {
            all.push(entry.architecture);
            all.extend(entry.sub_architectures.iter().flatten());
        }
        all
    }
}

impl Rule {
    fn calls(&self) -> impl Iterator<Item = &str> {
        self.name.iter().chain(&self.names).map(String::as_str)
    }

    fn allows(&self) -> bool {
        matches!(self.action, LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog)
    }

    fn applies(&self, host: &Host, bounding: &Capabilities) -> Result<bool, SeccompError> {
        let mut applies = true;
        if let Some(includes) = &self.includes {
            let caps = includes.capabilities()?;
            applies &= caps.is_subset(bounding);
            applies &= includes.arch_matches(host)?.unwrap_or(true);
            applies &= includes.kernel_matches(host)?.unwrap_or(true);
        }
        if let Some(excludes) = &self.excludes {
            let caps = excludes.capabilities()?;
            applies &= caps.is_disjoint(bounding);
            applies &= !excludes.arch_matches(host)?.unwrap_or(false);
            applies &= !excludes.kernel_matches(host)?.unwrap_or(false);
        }
        Ok(applies)
    }

    fn to_spec(&self, names: Vec<String>) -> LinuxSyscall {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names);
        rule.set_action(self.action);
        rule.set_errno_ret(self.errno_ret);
        rule.set_args(self.args.clone());
        rule
    }
}

impl Filter {
    fn capabilities(&self) -> Result<Capabilities, SeccompError> {
        let read = |name: &String| {
            let known = name.strip_prefix("CAP_").and_then(|short| short.parse::<Capability>().ok());
            known
                .ok_or_else(|| SeccompError::Condition(name.clone(), "a capability, as CAP_SYS_ADMIN is one"))
        };
        self.caps.iter().flatten().map(read).collect::<Result<HashSet<_>, _>>()
    }

    fn arch_matches(&self, host: &Host) -> Result<Option<bool>, SeccompError> {
        let Some(arches) = &self.arches else { return Ok(None) };
        match arches.iter().find(|arch| !ARCHITECTURES.contains(&arch.as_str())) {
            Some(unknown) => {
                Err(SeccompError::Condition(unknown.clone(), "an architecture, as amd64 is one"))
            }
            None => Ok(Some(arches.iter().any(|arch| arch == host.arch))),
        }
    }

    fn kernel_matches(&self, host: &Host) -> Result<Option<bool>, SeccompError> {
        let Some(text) = &self.min_kernel else { return Ok(None) };
        let wanted = version(text)
            .ok_or_else(|| SeccompError::Condition(text.clone(), "a version of the kernel, as 4.8 is one"))?;
        Ok(Some(host.kernel >= wanted))
    }
}

/// Docker's and Mesos' names of architectures in `arches`.
const ARCHITECTURES: [&str; 22] = [
    "386",
    "x86",
    "amd64",
    "x32",
    "arm",
    "arm64",
    "mips",
    "mipsel",
    "mipsle",
    "mips64",
    "mipsel64",
    "mips64le",
    "mips64n32",
    "mipsel64n32",
    "ppc",
    "ppc64",
    "ppc64le",
    "s390",
    "s390x",
    "riscv64",
    "loong64",
    "parisc",
];

fn name(arch: Arch) -> Option<&'static str> {
    Some(match arch {
        Arch::ScmpArchX86_64 => "amd64",
        Arch::ScmpArchAarch64 => "arm64",
        Arch::ScmpArchRiscv64 => "riscv64",
        _ => return None,
    })
}

/// The first two numbers of a kernel's release.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next()?, numbers.next()?) {
        (Ok(major), Ok(minor)) => Some((major, minor)),
        _ => None,
    }
}

impl Host {
    /// This one.
    pub(crate) fn detect() -> Result<Self, SeccompError> {
        let own = calls::tables().and_then(|tables| tables.first()).and_then(|table| name(table.arch));
        let arch = own.ok_or(SeccompError::Architecture)?;
        let release = nix::sys::utsname::uname().ok();
        let release = release.as_ref().and_then(|names| names.release().to_str());
        // All rules for newer kernels hold for one that does not tell.
        Ok(Self { arch, kernel: release.and_then(version).unwrap_or((u32::MAX, 0)) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bpf::interpret;
    use super::super::compile;
    use super::*;

    const HOST: Host = Host { arch: "amd64", kernel: (5, 10) };

    fn resolved(rules: &str, caps: &[Capability]) -> Result<Vec<String>, SeccompError> {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rules}]}}"#);
        let (spec, _) = Profile::parse(&text)?.resolve(&HOST, &caps.iter().copied().collect())?;
        Ok(spec.syscalls().as_ref().unwrap().iter().flat_map(|rule| rule.names().clone()).collect())
    }

    #[test]
    fn rules_apply_by_capability_architecture_and_kernel() {
        let admin = [Capability::SysAdmin, Capability::Bpf];
        let cases: [(&str, &[Capability], bool); 14] = [
            (r#""includes": {"caps": ["CAP_SYS_ADMIN"]}"#, &[], false),
            (r#""includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}"#, &admin, true),
            (r#""includes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}"#, &admin, false),
            (r#""excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}"#, &admin, false),
            (r#""excludes": {"caps": ["CAP_CHOWN"]}"#, &admin, true),
            (r#""includes": {"arches": ["amd64", "x32"]}"#, &[], true),
            (r#""includes": {"arches": ["s390x"]}"#, &[], false),
            (r#""excludes": {"arches": ["amd64"]}"#, &[], false),
            (r#""includes": {"minKernel": "4.8"}"#, &[], true),
            (r#""includes": {"minKernel": "5.11"}"#, &[], false),
            (r#""excludes": {"minKernel": "5.10"}"#, &[], false),
            (r#""includes": {}, "excludes": {}, "args": []"#, &[], true),
            (r#""includes": null, "args": null, "comment": "ignored""#, &[], true),
            (r#""includes": {"caps": ["CAP_BPF"], "arches": ["arm"]}"#, &admin, false),
        ];
        for (condition, caps, applies) in cases {
            let rule = format!(r#"{{"names": ["mount"], "action": "SCMP_ACT_ALLOW", {condition}}}"#);
            assert_eq!(resolved(&rule, caps).unwrap().len(), usize::from(applies), "{condition}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (rule, words) in [
            (r#"{"names": ["mount"]}"#, "syscalls[0]: missing field `action`"),
            (
                r#"{"names": ["mount"], "action": "SCMP_ACT_DENY"}"#,
                "syscalls[0].action: unknown variant `SCMP_ACT_DENY`",
            ),
            (r#"{"action": "SCMP_ACT_ALLOW"}"#, "rule number 0 names no system call"),
            (r#"{"names": ["monut"], "action": "SCMP_ACT_ERRNO"}"#, "'monut' is not a system call"),
            (
                r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["SYS_ADMIN"]}}"#,
                "'SYS_ADMIN' is not a capability",
            ),
            (
                r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["pdp11"]}}"#,
                "'pdp11' is not an architecture",
            ),
            (
                r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}"#,
                "'new' is not a version",
            ),
            (
                r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ"}]}"#,
                "syscalls[0].args[0]: missing field `value`",
            ),
            (
                r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "EQ"}]}"#,
                "unknown variant `EQ`",
            ),
        ] {
            let error = resolved(rule, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(Profile::parse("{").unwrap_err().to_string().contains("EOF"));
        assert!(Profile::parse(r#"{"syscalls": []}"#).unwrap_err().to_string().contains("defaultAction"));
    }

    #[test]
    fn calls_that_only_a_newer_kernel_has_are_passed_over_where_they_are_allowed() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["mount", "from_the_future"], "action": "SCMP_ACT_ALLOW"}]}"#;
        let (spec, passed_over) = Profile::parse(text).unwrap().resolve(&HOST, &Capabilities::new()).unwrap();
        assert_eq!(passed_over, ["from_the_future"]);
        compile(&spec, &[]).unwrap();
    }

    #[test]
    fn the_profile_that_comes_with_tepui_is_one() {
        let profile = Profile::parse(include_str!("../../../docs/seccomp/default.json")).unwrap();
        let host = Host::detect().unwrap();
        let sizes = [Capabilities::new(), [Capability::SysAdmin].into_iter().collect()].map(|caps| {
            let (spec, passed_over) = profile.resolve(&host, &caps).unwrap();
            assert_eq!(passed_over, Vec::<String>::new());
            compile(&spec, &[]).unwrap().len()
        });
        println!("instructions without and with CAP_SYS_ADMIN: {sizes:?}");
        assert!(sizes.iter().all(|size| *size < 1500), "{sizes:?}");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_profile_that_comes_with_tepui_keeps_programs_from_the_host() {
        const ALLOW: u32 = 0x7fff_0000;
        let profile = Profile::parse(include_str!("../../../docs/seccomp/default.json")).unwrap();
        let program = |caps: &[Capability]| {
            let (spec, _) =
                profile.resolve(&Host::detect().unwrap(), &caps.iter().copied().collect()).unwrap();
            compile(&spec, &[]).unwrap()
        };
        let run = |program: &[u64], name: &str, first: u64| {
            let number = u32::try_from(name.parse::<syscalls::x86_64::Sysno>().unwrap().id()).unwrap();
            interpret(program, 0xc000_003e, number, [first, 0, 0, 0, 0, 0])
        };
        let (bare, admin) = (program(&[]), program(&[Capability::SysAdmin]));
        for name in ["execve", "openat", "read", "futex", "clone", "rt_sigreturn", "statx", "accept4", "rseq"]
        {
            assert_eq!(run(&bare, name, 0), ALLOW, "{name}");
        }
        for name in
            ["kexec_load", "add_key", "keyctl", "swapon", "userfaultfd", "io_uring_setup", "init_module"]
        {
            assert_eq!(run(&bare, name, 0), 0x0005_0001, "{name}");
            assert_eq!(run(&admin, name, 0), 0x0005_0001, "{name}");
        }
        for name in ["mount", "umount2", "setns", "unshare", "bpf", "fsopen", "sethostname"] {
            assert_eq!(run(&bare, name, 0), 0x0005_0001, "{name}");
            assert_eq!(run(&admin, name, 0), ALLOW, "{name}");
        }
        let new_user_namespace = u64::try_from(libc::CLONE_NEWUSER).unwrap();
        assert_eq!(run(&bare, "clone", new_user_namespace), 0x0005_0001);
        assert_eq!(run(&admin, "clone", new_user_namespace), ALLOW);
        // So that the C library takes clone, of which the flags can be seen.
        assert_eq!(run(&bare, "clone3", 0), 0x0005_0000 | 38);
        assert_eq!(run(&bare, "socket", u64::try_from(libc::AF_INET).unwrap()), ALLOW);
        assert_eq!(run(&bare, "socket", u64::try_from(libc::AF_VSOCK).unwrap()), 0x0005_0001);
        assert_eq!(run(&bare, "personality", 0), ALLOW);
        assert_eq!(run(&bare, "personality", 0x0004_0000), 0x0005_0001, "ADDR_NO_RANDOMIZE");
    }
}
