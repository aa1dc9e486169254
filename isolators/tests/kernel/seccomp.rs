//! Filters of system calls against the kernel: what was compiled does what the rules say.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output};

use oci_spec::runtime::LinuxSeccomp;
use tepui_isolators::seccomp::compile;

/// Runs a shell script under rules, as the OCI runtime spec has them in JSON.
fn under(rules: &str, script: &str) -> Output {
    let rules: LinuxSeccomp = serde_json::from_str(rules).unwrap();
    let unpack = |packed: u64| libc::sock_filter {
        code: (packed >> 48) as u16,
        jt: (packed >> 40) as u8,
        jf: (packed >> 32) as u8,
        k: packed as u32,
    };
    let mut filter: Vec<_> = compile(&rules, &[]).unwrap().into_iter().map(unpack).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(dir.path());
    let install = move || {
        let program = libc::sock_fprog { len: filter.len().try_into().unwrap(), filter: filter.as_mut_ptr() };
        // SAFETY: takes integers only.
        let bit = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the program and its instructions live through the call.
        let installed =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if bit == 0 && installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: two system calls and no allocation between fork and exec.
    unsafe { command.pre_exec(install) };
    command.output().unwrap()
}

const MKDIR: &str = r#""names": ["mkdir", "mkdirat"]"#;

#[test]
fn a_call_gets_the_errno_of_its_rule_and_others_go_on() {
    let rules = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{{MKDIR}, "action": "SCMP_ACT_ERRNO", "errnoRet": 122}}]}}"#
    );
    let done = under(&rules, "echo first > file; mkdir there; cat file");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(out, "first\n");
    assert!(err.contains("Disk quota exceeded"), "{err}");
}

#[test]
fn a_call_that_is_not_survived_ends_with_sigsys() {
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"] {
        let rules = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{{MKDIR}, "action": "{action}"}}]}}"#
        );
        let done = under(&rules, "exec mkdir there");
        assert_eq!(done.status.signal(), Some(libc::SIGSYS), "{action}: {done:?}");
    }
}

#[test]
fn conditions_look_at_arguments() {
    // The second argument of kill is the signal.
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]}"#;
    let done = under(rules, "kill -0 $$ && echo may; kill -USR1 $$ || echo may not");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "may\nmay not\n");
}
