//! Classic BPF for filters of system calls.
//!
//! The kernel gives a filter the number of the call, its architecture and its six arguments (`struct seccomp_data`), and takes a
//! 32-bit value back. There is one block of instructions for each architecture: a search tree over the numbers, whose leaves
//! decide. So a call costs about seven comparisons, however long the profile. Arguments have 64 bits and are compared in two halves.
//! Jumps on a condition reach 255 instructions; further goes an unconditional one. Rules: `seccomp(2)`, the kernel's `networking/filter`.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Op};

use super::Decision;

/// `BPF_MAXINSNS`.
pub(super) const LONGEST: usize = 4096;

/// `BPF_LD | BPF_W | BPF_ABS`, and so on.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where `struct seccomp_data` has what.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const KILL_PROCESS: u32 = 0x8000_0000;
const NO_SUCH_CALL: u32 = 0x0005_0000 | 38;
/// `__X32_SYSCALL_BIT`: calls of the x32 ABI come with the architecture of x86-64.
const X32: u32 = 0x4000_0000;

/// One instruction, before it is packed.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    /// How many instructions to leave out if the condition holds.
    then: u8,
    /// And if not.
    otherwise: u8,
    value: u32,
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, then: 0, otherwise: 0, value }
}

fn branch(code: u16, value: u32, then: u8, otherwise: u8) -> Instruction {
    Instruction { code, then, otherwise, value }
}

/// A filter in the making: its blocks by architecture.
#[derive(Default)]
pub(super) struct Program {
    blocks: Vec<(u32, Vec<Instruction>)>,
}

impl Program {
    /// Adds the block of one architecture.
    pub(super) fn add(
        &mut self,
        audit: u32,
        has_x32: bool,
        decisions: &BTreeMap<u32, Vec<Decision>>,
        default: u32,
    ) {
        let mut block = vec![plain(LOAD, NUMBER)];
        if has_x32 {
            block.push(branch(JUMP_GE, X32, 0, 1));
            block.push(plain(RETURN, NO_SUCH_CALL));
        }
        block.extend(tree(&segments(decisions, default)));
        self.blocks.push((audit, block));
    }

    /// The whole, packed.
    pub(super) fn finish(self) -> Vec<u64> {
        let mut all = vec![plain(LOAD, ARCHITECTURE)];
        let mut before = 0;
        for (place, (audit, block)) in self.blocks.iter().enumerate() {
            all.push(branch(JUMP_EQ, *audit, 0, 1));
            // Over the comparisons that follow, the last resort, and the blocks before.
            let rest = 2 * (self.blocks.len() - place - 1) + 1;
            all.push(plain(JUMP, distance(rest + before)));
            before += block.len();
        }
        all.push(plain(RETURN, KILL_PROCESS));
        all.extend(self.blocks.into_iter().flat_map(|(_, block)| block));
        all.iter().map(pack).collect()
    }
}

/// A program that long is refused later.
fn distance(instructions: usize) -> u32 {
    u32::try_from(instructions).unwrap_or(u32::MAX)
}

fn pack(one: &Instruction) -> u64 {
    u64::from(one.code) << 48
        | u64::from(one.then) << 40
        | u64::from(one.otherwise) << 32
        | u64::from(one.value)
}

/// Numbers from this one up to the next segment's have the same instructions.
struct Segment {
    from: u32,
    leaf: Vec<Instruction>,
    /// The value, if it does not depend on arguments.
    always: Option<u32>,
}

fn segments(decisions: &BTreeMap<u32, Vec<Decision>>, default: u32) -> Vec<Segment> {
    let fixed = |from, value| Segment { from, leaf: vec![plain(RETURN, value)], always: Some(value) };
    let mut all = vec![fixed(0, default)];
    let mut add = |segment: Segment| {
        if segment.always.is_some() && all.last().is_some_and(|last| last.always == segment.always) {
            return;
        }
        if all.last().is_some_and(|last| last.from == segment.from) {
            all.pop();
        }
        all.push(segment);
    };
    for (number, of_one) in decisions {
        let always = match of_one.as_slice() {
            [only] if only.conditions.is_empty() => Some(only.action),
            _ => None,
        };
        match always {
            Some(value) => add(fixed(*number, value)),
            None => add(Segment { from: *number, leaf: leaf(of_one, default), always }),
        }
        if !decisions.contains_key(&(number + 1)) {
            add(fixed(number + 1, default));
        }
    }
    all
}

/// Finds the segment of the number in the accumulator.
fn tree(segments: &[Segment]) -> Vec<Instruction> {
    let [first, rest @ ..] = segments else { return Vec::new() };
    if rest.is_empty() {
        return first.leaf.clone();
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let (left, right) = (tree(low), tree(high));
    let pivot = high.first().map_or(0, |segment| segment.from);
    let mut all = match u8::try_from(left.len()) {
        Ok(short) => vec![branch(JUMP_GE, pivot, short, 0)],
        Err(_) => vec![branch(JUMP_GE, pivot, 0, 1), plain(JUMP, distance(left.len()))],
    };
    all.extend(left);
    all.extend(right);
    all
}

/// The first decision whose conditions hold.
fn leaf(decisions: &[Decision], default: u32) -> Vec<Instruction> {
    let mut all = Vec::new();
    for decision in decisions {
        // From the last condition to the first, so that each knows how far it is to the next decision.
        let mut these = vec![plain(RETURN, decision.action)];
        for condition in decision.conditions.iter().rev() {
            // At most six conditions of six instructions.
            let fail = u8::try_from(these.len()).unwrap_or(u8::MAX);
            let mut with = check(condition, fail);
            with.extend(these);
            these = with;
        }
        all.extend(these);
    }
    if decisions.last().is_none_or(|last| !last.conditions.is_empty()) {
        all.push(plain(RETURN, default));
    }
    all
}

/// Goes on behind itself if the condition holds, and `fail` instructions further if not.
#[expect(clippy::cast_possible_truncation, reason = "halves of a number")]
fn check(condition: &LinuxSeccompArg, fail: u8) -> Vec<Instruction> {
    // An argument's low half comes first: all architectures that have a table are little-endian.
    let low_half = ARGUMENTS + 8 * condition.index() as u32;
    let (load_high, load_low) = (plain(LOAD, low_half + 4), plain(LOAD, low_half));
    let value = condition.value();
    let (high, low) = ((value >> 32) as u32, value as u32);
    match condition.op() {
        Op::ScmpCmpEq => {
            vec![load_high, branch(JUMP_EQ, high, 0, fail + 2), load_low, branch(JUMP_EQ, low, 0, fail)]
        }
        Op::ScmpCmpNe => {
            vec![load_high, branch(JUMP_EQ, high, 0, 2), load_low, branch(JUMP_EQ, low, fail, 0)]
        }
        Op::ScmpCmpGt => ordered(load_high, load_low, high, branch(JUMP_GT, low, 0, fail), (2, fail + 2)),
        Op::ScmpCmpGe => ordered(load_high, load_low, high, branch(JUMP_GE, low, 0, fail), (2, fail + 2)),
        Op::ScmpCmpLe => ordered(load_high, load_low, high, branch(JUMP_GT, low, fail, 0), (fail + 2, 2)),
        Op::ScmpCmpLt => ordered(load_high, load_low, high, branch(JUMP_GE, low, fail, 0), (fail + 2, 2)),
        Op::ScmpCmpMaskedEq => {
            let expected = condition.value_two().unwrap_or_default();
            let (expected_high, expected_low) = ((expected >> 32) as u32, expected as u32);
            vec![
                load_high,
                plain(AND, high),
                branch(JUMP_EQ, expected_high, 0, fail + 3),
                load_low,
                plain(AND, low),
                branch(JUMP_EQ, expected_low, 0, fail),
            ]
        }
    }
}

/// If the high half is greater, goes on after `greater` more instructions, if smaller after `smaller`; if equal, the low half decides.
fn ordered(
    load_high: Instruction,
    load_low: Instruction,
    high: u32,
    decide: Instruction,
    (greater, smaller): (u8, u8),
) -> Vec<Instruction> {
    vec![
        load_high,
        branch(JUMP_GT, high, greater + 1, 0),
        branch(JUMP_EQ, high, 0, smaller),
        load_low,
        decide,
    ]
}

/// What the kernel does with a filter.
#[cfg(test)]
pub(super) fn interpret(program: &[u64], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [number.to_le_bytes(), audit.to_le_bytes()].concat();
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let packed = program[at];
        let (code, value) = ((packed >> 48) as u16, packed as u32);
        let (then, otherwise) = ((packed >> 40) as u8 as usize, (packed >> 32) as u8 as usize);
        let mut jump = |holds: bool| at += if holds { then } else { otherwise };
        match code {
            LOAD => {
                let place = value as usize;
                accumulator = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
            }
            AND => accumulator &= value,
            JUMP => at += value as usize,
            JUMP_EQ => jump(accumulator == value),
            JUMP_GT => jump(accumulator > value),
            JUMP_GE => jump(accumulator >= value),
            RETURN => return value,
            other => panic!("an instruction that is never made: {other:#x}"),
        }
        at += 1;
    }
}
