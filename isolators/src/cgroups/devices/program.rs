//! From rules to an eBPF program that decides as v1's list would.
//!
//! The kernel calls it with the address of three 32-bit words in `r1` (`struct bpf_cgroup_dev_ctx`): access and kind in one, major, minor.
//! It answers 1 in `r0` for yes. For each rule, in turn, it jumps to the next one at the first thing that does not fit, and answers yes
//! when all does; after the last, no. There are no loops and no calls, so that every kernel's verifier takes it.

use super::{Kind, Rule};

/// One instruction, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    /// Destination and source, four bits each.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// `*(u32 *)(source + offset)`.
pub const LOAD: u8 = 0x61;
pub const AND: u8 = 0x57;
pub const SHIFT_RIGHT: u8 = 0x77;
pub const COPY: u8 = 0xbf;
pub const SET: u8 = 0xb7;
/// Jump if not equal to a number.
pub const UNLESS: u8 = 0x55;
/// Jump if not equal to a register.
pub const UNLESS_SAME: u8 = 0x5d;
pub const EXIT: u8 = 0x95;

// `linux/bpf.h`, BPF_DEVCG_*.
pub const BLOCK: i32 = 1;
pub const CHARACTER: i32 = 2;
pub const MKNOD: i32 = 1;
pub const READ: i32 = 2;
pub const WRITE: i32 = 4;

const ANSWER: u8 = 0;
/// The address of what is asked, then room for a sum.
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from };
    Instruction { code, registers, offset, immediate }
}

/// The program for some rules.
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut whole = vec![
        instruction(LOAD, KIND, CONTEXT, 0, 0),
        instruction(COPY, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    rules.iter().for_each(|rule| whole.extend(part(rule)));
    whole.extend(answer(0));
    whole
}

fn answer(yes: i32) -> [Instruction; 2] {
    [instruction(SET, ANSWER, 0, 0, yes), instruction(EXIT, 0, 0, 0, 0)]
}

fn part(rule: &Rule) -> Vec<Instruction> {
    let kind = match rule.kind {
        Kind::Block => BLOCK,
        Kind::Character => CHARACTER,
    };
    let allowed = [(rule.read, READ), (rule.write, WRITE), (rule.mknod, MKNOD)];
    let allowed: i32 = allowed.iter().filter(|(given, _)| *given).map(|(_, bit)| bit).sum();
    let mut part = vec![
        instruction(UNLESS, KIND, 0, 0, kind),
        instruction(COPY, SCRATCH, ACCESS, 0, 0),
        instruction(AND, SCRATCH, 0, 0, allowed),
        instruction(UNLESS_SAME, SCRATCH, ACCESS, 0, 0),
    ];
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        // Majors have 12 bits and minors 20; what is larger fits no device.
        let number = number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
        part.extend(number.map(|number| instruction(UNLESS, register, 0, 0, number)));
    }
    part.extend(answer(1));
    let length = part.len();
    for (at, instruction) in part.iter_mut().enumerate() {
        if matches!(instruction.code, UNLESS | UNLESS_SAME) {
            // Counted from the instruction after the jump. A part has ten at most.
            instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 0xf), usize::from(pair >> 4));
            let number = i64::from(immediate) as u64;
            at += 1;
            let jumps = match code {
                LOAD => {
                    registers[to] = u64::from(context[usize::try_from(offset).unwrap() / 4]);
                    false
                }
                COPY => {
                    registers[to] = registers[from];
                    false
                }
                SET => {
                    registers[to] = number;
                    false
                }
                AND => {
                    registers[to] &= number;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= number;
                    false
                }
                UNLESS => registers[to] != number,
                UNLESS_SAME => registers[to] != registers[from],
                EXIT => return registers[0],
                _ => panic!("{code:x}"),
            };
            if jumps {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    fn allows(rule: &Rule, kind: Kind, access: u32, major: u32, minor: u32) -> bool {
        let given = |bit: i32, has: bool| access & bit.unsigned_abs() == 0 || has;
        rule.kind == kind
            && rule.major.is_none_or(|number| number == major)
            && rule.minor.is_none_or(|number| number == minor)
            && given(READ, rule.read)
            && given(WRITE, rule.write)
            && given(MKNOD, rule.mknod)
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Block), Just(Kind::Character)]
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let numbers = || proptest::option::of(0u32..4);
        let rule = (kinds(), numbers(), numbers(), any::<[bool; 3]>());
        let rule = rule.prop_map(|(kind, major, minor, [read, write, mknod])| Rule {
            kind,
            major,
            minor,
            read,
            write,
            mknod,
        });
        proptest::collection::vec(rule, 0..6)
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_say(
            rules in rules(), kind in kinds(), access in 1u32..8, major in 0u32..4, minor in 0u32..4,
        ) {
            let word = access << 16 | if kind == Kind::Block { 1 } else { 2 };
            let expected = rules.iter().any(|rule| allows(rule, kind, access, major, minor));
            prop_assert_eq!(run(&program(&rules), [word, major, minor]), u64::from(expected));
        }
    }
}
