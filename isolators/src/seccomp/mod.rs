//! Filters of system calls: from a profile to what the kernel runs at each call.
//!
//! 1. `profile` reads a profile in Docker's JSON format, and resolves what depends on the host and the container: architectures,
//!    the kernel's version, capabilities. What comes out are the rules in the form of the OCI runtime spec, [`LinuxSeccomp`].
//! 2. [`compile`] makes classic BPF of such rules, whoever wrote them: `bpf` has the instructions, `calls` the numbers.
//!
//! When several rules match a call, the most restrictive action is taken, in the kernel's own order: kill the process, kill the
//! thread, trap, errno, trace, log, allow. When none does, it is the default action. A call of an architecture that the profile does
//! not name ends the process; one of the x32 ABI is answered with ENOSYS, as by a kernel that is built without it.
//!
//! Why there is a compiler of our own: `docs/decisions/0016-seccomp.md`.

mod bpf;
mod calls;
pub(crate) mod profile;

use std::collections::BTreeMap;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall};

use bpf::Program;
use calls::Table;

/// Rules or a profile that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// This machine's architecture has no table of system calls here.
    #[error(
        "filters of system calls are not built for this machine's architecture ({})",
        std::env::consts::ARCH
    )]
    Architecture,
    /// Needs a program that listens.
    #[error("the action {0} needs a program that answers for the kernel, which there is none of here")]
    Action(LinuxSeccompAction),
    /// The kernel takes values up to 4095.
    #[error("{0} is not an error number: the largest is 4095")]
    Errno(u32),
    /// Neither here nor on another architecture.
    #[error("'{0}' is not a system call")]
    Unknown(String),
    /// A call has six arguments.
    #[error("'{name}': a system call has no argument {index}; the first is 0, the last 5")]
    Argument {
        /// The call.
        name: String,
        /// As written.
        index: usize,
    },
    /// All conditions of a rule must hold.
    #[error("'{name}': argument {index} has two conditions in one rule: write two rules if either is enough")]
    Twice {
        /// The call.
        name: String,
        /// The argument.
        index: usize,
    },
    /// The kernel takes 4096 instructions.
    #[error("the filter has {0} instructions, and the kernel takes 4096: use fewer rules with conditions")]
    TooLong(usize),
    /// Not such JSON.
    #[error("{place}: {reason}")]
    Json {
        /// Which field.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Without names.
    #[error("the rule number {0} names no system call")]
    NoNames(usize),
    /// In `includes` or `excludes`.
    #[error("'{0}' is not {1}")]
    Condition(String, &'static str),
}

/// Compiles rules to instructions, each as `code << 48 | jt << 40 | jf << 32 | k`. The system calls named in `always` are allowed
/// whatever the rules say.
///
/// # Errors
/// When the rules cannot be put into a filter.
pub fn compile(rules: &LinuxSeccomp, always: &[&str]) -> Result<Vec<u64>, SeccompError> {
    let tables = calls::tables().ok_or(SeccompError::Architecture)?;
    let default = action(rules.default_action(), rules.default_errno_ret())?;
    let listed = rules.architectures().as_deref().unwrap_or_default();
    let mut program = Program::default();
    for (index, table) in tables.iter().enumerate() {
        // The machine's own is always meant.
        if index == 0 || listed.contains(&table.arch) {
            let decisions = decisions(table, rules.syscalls().as_deref().unwrap_or_default(), always)?;
            program.add(table.audit, table.arch == Arch::ScmpArchX86_64, &decisions, default);
        }
    }
    let instructions = program.finish();
    if instructions.len() > bpf::LONGEST {
        return Err(SeccompError::TooLong(instructions.len()));
    }
    Ok(instructions)
}

/// One way for a call to be decided: if all conditions hold, the kernel's value of the action.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    conditions: Vec<LinuxSeccompArg>,
    action: u32,
}

/// What is to be decided about each call that is named, in the order of looking.
fn decisions(
    table: &Table,
    rules: &[LinuxSyscall],
    always: &[&str],
) -> Result<BTreeMap<u32, Vec<Decision>>, SeccompError> {
    let mut all: BTreeMap<u32, Vec<Decision>> = BTreeMap::new();
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        for name in rule.names() {
            let conditions = rule.args().clone().unwrap_or_default();
            check(name, &conditions)?;
            match (table.number)(name) {
                Some(number) => all.entry(number).or_default().push(Decision { conditions, action }),
                // Another architecture's, which nobody can make here.
                None if calls::exists(name) => {}
                None => return Err(SeccompError::Unknown(name.clone())),
            }
        }
    }
    for of_one in all.values_mut() {
        of_one.sort_by_key(|decision| severity(decision.action));
        if let Some(last) = of_one.iter().position(|decision| decision.conditions.is_empty()) {
            of_one.truncate(last + 1);
        }
    }
    for number in always.iter().filter_map(|name| (table.number)(name)) {
        all.insert(number, vec![Decision { conditions: Vec::new(), action: ALLOW }]);
    }
    Ok(all)
}

fn check(name: &str, conditions: &[LinuxSeccompArg]) -> Result<(), SeccompError> {
    for (place, condition) in conditions.iter().enumerate() {
        let index = condition.index();
        if index > 5 {
            return Err(SeccompError::Argument { name: name.to_owned(), index });
        }
        if conditions.iter().take(place).any(|other| other.index() == index) {
            return Err(SeccompError::Twice { name: name.to_owned(), index });
        }
    }
    Ok(())
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 1;

/// The value by which a filter tells the kernel what to do (`linux/seccomp.h`).
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    let errno = errno.unwrap_or(EPERM);
    if errno > 4095 {
        return Err(SeccompError::Errno(errno));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | errno,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | errno,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => return Err(SeccompError::Action(action)),
    })
}

/// The most restrictive first, as the kernel orders them (`seccomp(2)`): as a signed number, without the data.
fn severity(action: u32) -> i32 {
    (action & 0xffff_0000).cast_signed()
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{
        LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator as Op, LinuxSyscallBuilder,
    };
    use proptest::prelude::*;

    use super::bpf::interpret;
    use super::*;

    fn rule(names: &[&str], what: LinuxSeccompAction, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
        let mut rule = LinuxSyscallBuilder::default()
            .names(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .action(what)
            .build()
            .unwrap();
        rule.set_args(Some(args));
        rule
    }

    fn rules(default: LinuxSeccompAction, list: Vec<LinuxSyscall>) -> LinuxSeccomp {
        LinuxSeccompBuilder::default().default_action(default).syscalls(list).build().unwrap()
    }

    fn arg(index: usize, op: Op, value: u64, two: Option<u64>) -> LinuxSeccompArg {
        LinuxSeccompArgBuilder::default()
            .index(index)
            .op(op)
            .value(value)
            .value_two(two.unwrap_or_default())
            .build()
            .unwrap()
    }

    const ERRNO: u32 = 0x0005_0001;

    fn run(program: &[u64], name: &str, args: [u64; 6]) -> u32 {
        let table = &calls::tables().unwrap()[0];
        interpret(program, table.audit, (table.number)(name).unwrap(), args)
    }

    #[test]
    fn the_most_restrictive_rule_that_matches_counts() {
        use LinuxSeccompAction as A;
        let list = vec![
            rule(&["read", "write", "personality"], A::ScmpActAllow, vec![]),
            rule(&["write"], A::ScmpActErrno, vec![arg(2, Op::ScmpCmpGt, 10, None)]),
            rule(&["write"], A::ScmpActKillProcess, vec![arg(2, Op::ScmpCmpGt, 20, None)]),
            rule(&["mount"], A::ScmpActTrap, vec![]),
        ];
        let mut rules = rules(A::ScmpActErrno, list);
        rules.set_default_errno_ret(Some(38));
        let program = compile(&rules, &[]).unwrap();
        assert_eq!(run(&program, "read", [0; 6]), ALLOW);
        assert_eq!(run(&program, "write", [0, 0, 10, 0, 0, 0]), ALLOW);
        assert_eq!(run(&program, "write", [0, 0, 11, 0, 0, 0]), ERRNO);
        assert_eq!(run(&program, "write", [0, 0, 21, 0, 0, 0]), 0x8000_0000);
        assert_eq!(run(&program, "mount", [0; 6]), 0x0003_0000);
        assert_eq!(run(&program, "umount2", [0; 6]), 0x0005_0000 | 38);
        let program = compile(&rules, &["mount", "umount2", "write"]).unwrap();
        assert_eq!(run(&program, "mount", [0; 6]), ALLOW);
        assert_eq!(run(&program, "umount2", [0; 6]), ALLOW);
        assert_eq!(run(&program, "write", [0, 0, 21, 0, 0, 0]), ALLOW);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn other_architectures_are_ended_unless_they_are_named() {
        use LinuxSeccompAction as A;
        let x86 = 0x4000_0003;
        let mut rules = rules(A::ScmpActAllow, vec![rule(&["mount"], A::ScmpActErrno, vec![])]);
        let program = compile(&rules, &[]).unwrap();
        assert_eq!(interpret(&program, x86, 21, [0; 6]), 0x8000_0000);
        rules.set_architectures(Some(vec![Arch::ScmpArchX86]));
        let program = compile(&rules, &[]).unwrap();
        assert_eq!(interpret(&program, x86, 21, [0; 6]), ERRNO, "mount has the number 21 there");
        assert_eq!(interpret(&program, x86, 165, [0; 6]), ALLOW);
        assert_eq!(run(&program, "mount", [0; 6]), ERRNO);
        // x32 cannot be used to get round the rules.
        assert_eq!(interpret(&program, 0xc000_003e, 0x4000_0000 | 165, [0; 6]), 0x0005_0000 | 38);
    }

    #[test]
    fn what_cannot_be_is_said() {
        use LinuxSeccompAction as A;
        let of =
            |rule: LinuxSyscall| compile(&rules(A::ScmpActAllow, vec![rule]), &[]).unwrap_err().to_string();
        assert!(of(rule(&["monut"], A::ScmpActErrno, vec![])).contains("'monut' is not a system call"));
        assert!(of(rule(&["mount"], A::ScmpActNotify, vec![])).contains("SCMP_ACT_NOTIFY"));
        let high = arg(6, Op::ScmpCmpEq, 0, None);
        assert!(of(rule(&["mount"], A::ScmpActErrno, vec![high])).contains("no argument 6"));
        let twice = vec![arg(1, Op::ScmpCmpEq, 0, None), arg(1, Op::ScmpCmpEq, 1, None)];
        assert!(of(rule(&["mount"], A::ScmpActErrno, twice)).contains("write two rules"));
        let mut large = rule(&["mount"], A::ScmpActErrno, vec![]);
        large.set_errno_ret(Some(4096));
        assert!(of(large).contains("4096 is not an error number"));
        let every = calls::names();
        let many =
            (0..40).map(|value| rule(&every, A::ScmpActErrno, vec![arg(0, Op::ScmpCmpEq, value, None)]));
        let error = compile(&rules(A::ScmpActAllow, many.collect()), &[]).unwrap_err();
        assert!(matches!(error, SeccompError::TooLong(_)), "{error}");
    }

    /// What the rules mean, without any BPF.
    fn meant(rules: &LinuxSeccomp, name: &str, args: [u64; 6]) -> u32 {
        let holds = |arg: &LinuxSeccompArg| {
            let (is, value) = (args[arg.index()], arg.value());
            match arg.op() {
                Op::ScmpCmpNe => is != value,
                Op::ScmpCmpLt => is < value,
                Op::ScmpCmpLe => is <= value,
                Op::ScmpCmpEq => is == value,
                Op::ScmpCmpGe => is >= value,
                Op::ScmpCmpGt => is > value,
                Op::ScmpCmpMaskedEq => is & value == arg.value_two().unwrap_or_default(),
            }
        };
        let of_call = rules
            .syscalls()
            .as_ref()
            .unwrap()
            .iter()
            .filter(|rule| rule.names().iter().any(|one| one == name));
        let matching = of_call.filter(|rule| rule.args().as_ref().unwrap().iter().all(holds));
        let actions = matching.map(|rule| action(rule.action(), rule.errno_ret()).unwrap());
        actions
            .min_by_key(|value| severity(*value))
            .unwrap_or_else(|| action(rules.default_action(), None).unwrap())
    }

    fn any_action() -> impl Strategy<Value = LinuxSeccompAction> {
        use LinuxSeccompAction as A;
        prop::sample::select(vec![
            A::ScmpActKill,
            A::ScmpActKillProcess,
            A::ScmpActTrap,
            A::ScmpActErrno,
            A::ScmpActTrace,
            A::ScmpActLog,
            A::ScmpActAllow,
        ])
    }

    /// Values around which comparisons of two halves can go wrong.
    fn any_value() -> impl Strategy<Value = u64> {
        let halves =
            prop::sample::select(vec![0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff_u64]);
        (halves.clone(), halves).prop_map(|(high, low)| high << 32 | low)
    }

    fn any_args() -> impl Strategy<Value = Vec<LinuxSeccompArg>> {
        let op = prop::sample::select(vec![
            Op::ScmpCmpNe,
            Op::ScmpCmpLt,
            Op::ScmpCmpLe,
            Op::ScmpCmpEq,
            Op::ScmpCmpGe,
            Op::ScmpCmpGt,
            Op::ScmpCmpMaskedEq,
        ]);
        let one = (0..3_usize, op, any_value(), any_value())
            .prop_map(|(index, op, value, two)| arg(index, op, value, Some(two & value)));
        prop::collection::vec(one, 0..4).prop_map(|mut args| {
            args.sort_by_key(LinuxSeccompArg::index);
            args.dedup_by_key(|arg| arg.index());
            args
        })
    }

    const NAMES: [&str; 8] = ["read", "write", "openat", "close", "execve", "mount", "clone", "personality"];

    proptest! {
        #[test]
        fn the_filter_does_what_the_rules_mean(
            default in any_action(),
            list in prop::collection::vec((prop::sample::subsequence(NAMES.to_vec(), 1..4), any_action(), any_args()), 0..12),
            calls in prop::collection::vec((prop::sample::select(NAMES.to_vec()), any_value(), any_value(), any_value()), 1..40),
        ) {
            let list = list.into_iter().map(|(names, what, args)| rule(&names, what, args)).collect();
            let rules = rules(default, list);
            let program = compile(&rules, &[]).unwrap();
            for (name, a, b, c) in calls {
                let args = [a, b, c, 0, 0, 0];
                prop_assert_eq!(run(&program, name, args), meant(&rules, name, args), "{} {:?}", name, args);
            }
        }
    }
}
