//! What a container's program may do, put in force at the last instant: [`Privileges`].
//!
//! `libcontainer` would put capabilities and resource limits in force before it makes the root file system, and has no filter of
//! system calls without a C library. Here each takes effect as late as it can, in this order:
//!
//! | when | what | why then |
//! | --- | --- | --- |
//! | created, from the shim | hard limits that are raised | the program's user may not |
//! | created, as the user | bounding, inheritable and ambient capabilities | what cannot be given fails the launch |
//! | last of all before `execve` | no_new_privs, resource limits, filter | what the runtime does itself must not meet them |
//!
//! The kernel installs a filter for a process that has CAP_SYS_ADMIN or no_new_privs. So without no_new_privs the permitted and
//! effective sets stay whole until `execve`, which computes them anew from the other sets and forgets the old ones
//! (`capabilities(7)`, "Transformation of capabilities during execve()"). With no_new_privs the old permitted set bounds the new one, so
//! that it is set exactly; the filter needs no capability then.
//!
//! A minimal init outlives that instant. It keeps the container's capabilities and CAP_KILL, and gets the filter too, with what
//! it needs itself added ([`Filter::init`]): a program that could trace its init would otherwise have a way round the filter.

use libcontainer::oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// What a program may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Its capabilities; absent: those that its user has.
    #[serde(default)]
    pub capabilities: Option<CapabilitySets>,
    /// It cannot gain any by executing a file (`PR_SET_NO_NEW_PRIVS`).
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Resource limits, of which the last for a resource counts.
    #[serde(default)]
    pub rlimits: Vec<PosixRlimit>,
    /// The system calls that it may make; absent: all.
    #[serde(default)]
    pub filter: Option<Filter>,
}

/// Capabilities as bits by their number, as in `/proc/<pid>/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// The most that it can ever have.
    pub bounding: u64,
    /// What it has; absent: what its user has.
    pub effective: Option<u64>,
    /// What it may take into the effective set; absent: what its user has.
    pub permitted: Option<u64>,
    /// What it keeps when it executes a file that has it too.
    pub inheritable: u64,
    /// What it keeps when it executes a file, though its user is not root.
    pub ambient: u64,
}

/// A filter of system calls (`seccomp(2)`), compiled to classic BPF.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// For the program: each instruction as `code << 48 | jt << 40 | jf << 32 | k`.
    pub program: Vec<u64>,
    /// For a minimal init that runs the program: the same filter, in which [`INIT_CALLS`] are allowed.
    pub init: Vec<u64>,
}

/// The system calls that a minimal init cannot do without.
pub const INIT_CALLS: [&str; 10] = [
    "rt_sigtimedwait",
    "rt_sigreturn",
    "restart_syscall",
    "wait4",
    "kill",
    "write",
    "close",
    "capset",
    "exit",
    "exit_group",
];

/// Something could not be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    #[error("the resource limit {name} cannot be raised to {value}: {source}")]
    Raise { name: PosixRlimitType, value: u64, source: Errno },
    #[error("the resource limit {name} cannot be set to {soft}, at most {hard}: {source}")]
    Limit { name: PosixRlimitType, soft: u64, hard: u64, source: Errno },
    #[error("the bounding set cannot be made {wanted:#x}: {source}")]
    Bounding { wanted: u64, source: Errno },
    #[error("the agent itself has not all of the capabilities {wanted:#x}: {source}")]
    Sets { wanted: u64, source: Errno },
    #[error("the ambient set cannot be made {wanted:#x}: {source}")]
    Ambient { wanted: u64, source: Errno },
    #[error("no_new_privs cannot be set: {0}")]
    NoNewPrivileges(Errno),
    #[error("the kernel does not take the filter of system calls: {0}")]
    Filter(Errno),
}

const CAP_KILL: u64 = 1 << 5;

impl Privileges {
    /// Whether anything is to be put in force.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Raises the hard limits of a process that has this one's to what it shall have, where they are lower.
    pub(crate) fn raise_limits(&self, process: Pid) -> Result<(), PrivilegeError> {
        for limit in &self.rlimits {
            let name = limit.typ();
            let raise = |source| PrivilegeError::Raise { name, value: limit.hard(), source };
            // Its own limits cannot be read without the capability that raising them takes.
            let old = prlimit(None, name, None).map_err(raise)?;
            if old.rlim_max >= limit.hard() {
                continue;
            }
            let new = libc::rlimit { rlim_cur: old.rlim_cur, rlim_max: limit.hard() };
            prlimit(Some(process), name, Some(new)).map_err(raise)?;
        }
        Ok(())
    }

    /// In the container, as its user, with all capabilities that the agent has in the permitted set: the sets that last.
    pub(crate) fn bound(&self) -> Result<(), PrivilegeError> {
        let Some(sets) = self.capabilities else { return Ok(()) };
        for number in 0..64 {
            // A number that the kernel does not know is an error, and so are all above.
            let Ok(present) = prctl(libc::PR_CAPBSET_READ, number, 0) else { break };
            if present == 1 && sets.bounding >> number & 1 == 0 {
                prctl(libc::PR_CAPBSET_DROP, number, 0)
                    .map_err(|source| PrivilegeError::Bounding { wanted: sets.bounding, source })?;
            }
        }
        let wanted = sets.inheritable;
        let mut own = capget().map_err(|source| PrivilegeError::Sets { wanted, source })?;
        // What is beyond the bounding set cannot be inherited, and need not be.
        own.inheritable = wanted;
        capset(own).map_err(|source| PrivilegeError::Sets { wanted, source })?;
        let ambient = |source| PrivilegeError::Ambient { wanted: sets.ambient, source };
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0).map_err(ambient)?;
        for number in (0..64).filter(|number| sets.ambient >> number & 1 == 1) {
            prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number)
                .map_err(ambient)?;
        }
        Ok(())
    }

    /// In the process that is about to execute the program: all that is left to put in force.
    pub(crate) fn settle(&self) -> Result<(), PrivilegeError> {
        let filter = self.filter.as_ref().map(|filter| unpack(&filter.program));
        if self.no_new_privileges {
            self.reduce(0)?;
            no_new_privileges()?;
        }
        for limit in &self.rlimits {
            let new = libc::rlimit { rlim_cur: limit.soft(), rlim_max: limit.hard() };
            prlimit(None, limit.typ(), Some(new)).map_err(|source| PrivilegeError::Limit {
                name: limit.typ(),
                soft: limit.soft(),
                hard: limit.hard(),
                source,
            })?;
        }
        filter.map_or(Ok(()), |filter| install(&filter))
    }

    /// In a minimal init, once the program's process is made.
    pub(crate) fn settle_init(&self) -> Result<(), PrivilegeError> {
        let filter = self.filter.as_ref().map(|filter| unpack(&filter.init));
        if self.no_new_privileges {
            no_new_privileges()?;
        }
        // First, as it may take the capability that is given up next.
        filter.map_or(Ok(()), |filter| install(&filter))?;
        self.reduce(CAP_KILL)
    }

    /// Makes the permitted and effective sets what the container shall have, and `more` as far as they had it.
    fn reduce(&self, more: u64) -> Result<(), PrivilegeError> {
        let Some(sets) = self.capabilities else { return Ok(()) };
        let failed = |source| PrivilegeError::Sets { wanted: sets.permitted.unwrap_or(u64::MAX), source };
        let mut own = capget().map_err(failed)?;
        let keep = sets.permitted.unwrap_or(sets.bounding) | more;
        own.permitted &= keep;
        own.effective &= sets.effective.unwrap_or(sets.bounding) | more;
        own.inheritable &= sets.inheritable;
        capset(own).map_err(failed)
    }
}

/// Makes all permitted capabilities effective, as a change of the user takes them away.
pub(crate) fn regain() -> Result<(), Errno> {
    let mut own = capget()?;
    own.effective = own.permitted;
    capset(own)
}

fn no_new_privileges() -> Result<(), PrivilegeError> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(PrivilegeError::NoNewPrivileges)?;
    Ok(())
}

fn unpack(program: &[u64]) -> Vec<libc::sock_filter> {
    #[expect(clippy::cast_possible_truncation, reason = "the parts of an instruction, by their place")]
    let instruction = |packed: &u64| libc::sock_filter {
        code: (packed >> 48) as u16,
        jt: (packed >> 40) as u8,
        jf: (packed >> 32) as u8,
        k: *packed as u32,
    };
    program.iter().map(instruction).collect()
}

fn install(filter: &[libc::sock_filter]) -> Result<(), PrivilegeError> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| PrivilegeError::Filter(Errno::EINVAL))?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program and its instructions live through the call, which only reads them.
    let installed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(installed).map_err(PrivilegeError::Filter)?;
    Ok(())
}

/// `prctl(2)` with operations that take integers.
fn prctl(operation: i32, first: libc::c_ulong, second: libc::c_ulong) -> Result<i32, Errno> {
    let none: libc::c_ulong = 0;
    // SAFETY: none of the operations that this file names takes a pointer.
    Errno::result(unsafe { libc::prctl(operation, first, second, none, none) })
}

/// The old limit; sets a new one if there is one. `None` is this process.
fn prlimit(
    process: Option<Pid>,
    name: PosixRlimitType,
    new: Option<libc::rlimit>,
) -> Result<libc::rlimit, Errno> {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let process = process.map_or(0, Pid::as_raw);
    // SAFETY: the limits are live local variables, or absent.
    Errno::result(unsafe { libc::prlimit(process, number(name), new, &raw mut old) })?;
    Ok(old)
}

#[cfg(target_env = "gnu")]
type Number = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Number = libc::c_int;

/// The numbers differ between architectures.
fn number(name: PosixRlimitType) -> Number {
    match name {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// The three sets that `capset(2)` sets.
#[derive(Debug, Clone, Copy)]
struct Own {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// One half of each set.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, this process.
const HEADER: Header = Header { version: 0x2008_0522, pid: 0 };

fn capget() -> Result<Own, Errno> {
    let (mut header, mut data) = (HEADER, [Data::default(); 2]);
    // SAFETY: a header and two halves, as this version has them, which live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let whole = |half: fn(&Data) -> u32| u64::from(half(&data[1])) << 32 | u64::from(half(&data[0]));
    Ok(Own {
        effective: whole(|data| data.effective),
        permitted: whole(|data| data.permitted),
        inheritable: whole(|data| data.inheritable),
    })
}

fn capset(own: Own) -> Result<(), Errno> {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half first, then the upper one")]
    let half = |shift: u32| Data {
        effective: (own.effective >> shift) as u32,
        permitted: (own.permitted >> shift) as u32,
        inheritable: (own.inheritable >> shift) as u32,
    };
    let (mut header, data) = (HEADER, [half(0), half(32)]);
    // SAFETY: a header and two halves, as this version has them, which live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_keep_their_parts() {
        let packed = 0x0015_u64 << 48 | 3 << 40 | 7 << 32 | 0xc000_003e;
        let [only] = unpack(&[packed])[..] else { panic!("one instruction") };
        assert_eq!((only.code, only.jt, only.jf, only.k), (0x15, 3, 7, 0xc000_003e));
    }

    #[test]
    fn plans_of_before_have_no_privileges() {
        assert!(!Privileges::default().any());
        assert_eq!(serde_json::from_str::<Privileges>("{}").unwrap(), Privileges::default());
    }

    #[test]
    fn the_kernel_s_sets_are_read() {
        let own = capget().unwrap();
        assert_eq!(own.effective & !own.permitted, 0);
        // The same again is always allowed.
        capset(own).unwrap();
    }

    #[test]
    fn limits_are_read_by_their_number() {
        let files = prlimit(None, PosixRlimitType::RlimitNofile, None).unwrap();
        let (soft, hard) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((files.rlim_cur, files.rlim_max), (soft, hard));
    }
}
