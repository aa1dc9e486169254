//! The numbers of system calls, by architecture.

use oci_spec::runtime::Arch;

/// The system calls of one architecture.
pub(super) struct Table {
    pub arch: Arch,
    /// By which the kernel tells a filter the architecture of a call (`linux/audit.h`).
    pub audit: u32,
    /// A call's number.
    pub number: fn(&str) -> Option<u32>,
}

macro_rules! number_on {
    ($arch:ident) => {
        |name| name.parse::<syscalls::$arch::Sysno>().ok().and_then(|call| u32::try_from(call.id()).ok())
    };
}

/// Those whose calls this machine's kernel takes; its own first.
pub(super) fn tables() -> Option<&'static [Table]> {
    const X86: &[Table] = &[
        Table { arch: Arch::ScmpArchX86_64, audit: 0xc000_003e, number: number_on!(x86_64) },
        Table { arch: Arch::ScmpArchX86, audit: 0x4000_0003, number: number_on!(x86) },
    ];
    const ARM: &[Table] = &[
        Table { arch: Arch::ScmpArchAarch64, audit: 0xc000_00b7, number: number_on!(aarch64) },
        Table { arch: Arch::ScmpArchArm, audit: 0x4000_0028, number: number_on!(arm) },
    ];
    const RISCV: &[Table] =
        &[Table { arch: Arch::ScmpArchRiscv64, audit: 0xc000_00f3, number: number_on!(riscv64) }];
    match std::env::consts::ARCH {
        "x86_64" => Some(X86),
        "aarch64" => Some(ARM),
        "riscv64" => Some(RISCV),
        _ => None,
    }
}

/// Whether any architecture has a call of this name.
pub(super) fn exists(name: &str) -> bool {
    const ALL: [fn(&str) -> Option<u32>; 13] = [
        number_on!(x86_64),
        number_on!(x86),
        number_on!(aarch64),
        number_on!(arm),
        number_on!(riscv64),
        number_on!(riscv32),
        number_on!(loongarch64),
        number_on!(mips),
        number_on!(mips64),
        number_on!(powerpc),
        number_on!(powerpc64),
        number_on!(s390x),
        number_on!(sparc64),
    ];
    ALL.iter().any(|number| number(name).is_some())
}

/// All of x86-64.
#[cfg(test)]
pub(super) fn names() -> Vec<&'static str> {
    syscalls::x86_64::Sysno::iter().map(|call| call.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn numbers_are_the_kernel_s() {
        let [own, older] = tables().unwrap() else { panic!("two tables") };
        let expected = u32::try_from(libc::SYS_execve).unwrap();
        assert_eq!(((own.number)("execve"), (older.number)("execve")), (Some(expected), Some(11)));
        assert_eq!(((own.number)("socketcall"), (older.number)("socketcall")), (None, Some(102)));
    }

    #[test]
    fn calls_of_other_architectures_exist_too() {
        assert!(exists("s390_pci_mmio_read") && exists("socketcall") && !exists("no_such_call"));
    }
}
