//! Random messages as protobuf bytes, with all required fields, from the table of shapes.

use super::{FieldShape, Kind, Label, MESSAGES};

/// Numbers from a seed (splitmix64), the same on every machine.
pub(super) struct Random(u64);

/// A field that is to be left out of the outermost message.
pub(super) type Omitted = Option<u32>;

// === impl Random ===

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of these, of which there are some.
    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Small ones and those at the ends of their types are likely.
    fn integer(&mut self) -> u64 {
        match self.below(6) {
            0 => *self.pick(&[0, 1, 127, 128, 1 << 31, (1 << 32) - 1, 1 << 53, (1 << 53) + 1]),
            1 => *self.pick(&[u64::MAX, i64::MAX as u64, i64::MIN as u64, i32::MIN as u64]),
            2 | 3 => self.next() % 100_000,
            _ => self.next(),
        }
    }

    /// Not -0.0: prost takes a map's value for its default, which equals it, and leaves it out.
    fn double(&mut self) -> f64 {
        match self.below(8) {
            0 => *self.pick(&[0.0, 1.5, 1e-300, f64::MAX, f64::MIN_POSITIVE, 5e-324]),
            1 => *self.pick(&[f64::INFINITY, f64::NEG_INFINITY, f64::NAN]),
            2 => self.integer() as f64,
            3 => (self.next() % 10_000_000) as f64 / 1000.0,
            4 => 1.7e9 + (self.next() % 1_000_000_000) as f64 / 1e9,
            _ => Some(f64::from_bits(self.next())).filter(|d| !d.is_nan() && *d != 0.0).unwrap_or(f64::NAN),
        }
    }

    fn text(&mut self) -> String {
        let pieces = [
            "a", "task-1", "/", ".", "é", "日本", "😀", "\"", "\\", "\n", "\t", "\u{0}", "\u{7f}",
            "\u{2028}", "null",
        ];
        (0..self.below(4)).map(|_| *self.pick(&pieces)).collect()
    }
}

/// A random message.
pub(super) fn message(place: usize, random: &mut Random) -> Vec<u8> {
    message_without(place, random, None)
}

/// A random message that lacks one field.
pub(super) fn message_without(place: usize, random: &mut Random, omitted: Omitted) -> Vec<u8> {
    let mut out = Vec::new();
    // How many fields are there varies from message to message, from nearly all to few.
    let generous = *random.pick(&[90, 50, 20, 5]);
    write(place, random, generous, 0, omitted, &mut out);
    out
}

fn write(
    place: usize,
    random: &mut Random,
    percent: usize,
    depth: usize,
    omitted: Omitted,
    out: &mut Vec<u8>,
) {
    let shape = &MESSAGES[place];
    // The entries of a map are messages too, and always whole.
    let is_entry = shape.name.ends_with("Entry") && shape.fields.len() == 2;
    for field in shape.fields.iter().filter(|field| Some(field.number) != omitted) {
        let times = match field.label {
            Label::Required => 1,
            Label::Optional if is_entry => 1,
            Label::Optional => usize::from(random.percent(percent)),
            Label::Repeated if random.percent(percent) => random.below(3),
            Label::Repeated => 0,
        };
        for _ in 0..times {
            write_field(field, random, percent, depth, out);
        }
    }
}

fn write_field(field: &FieldShape, random: &mut Random, percent: usize, depth: usize, out: &mut Vec<u8>) {
    let key = u64::from(field.number) << 3;
    let mut bytes = |wire_type: u64, value: &[u8]| {
        varint(key | wire_type, out);
        if wire_type == 2 {
            varint(value.len() as u64, out);
        }
        out.extend_from_slice(value);
    };
    let mut number = |value: u64| {
        let mut buffer = Vec::new();
        varint(value, &mut buffer);
        bytes(0, &buffer);
    };
    match field.kind {
        Kind::Integer => number(random.integer()),
        Kind::Bool => number(random.next() & 1),
        Kind::Enum(known) => number(i64::from(*random.pick(known)) as u64),
        Kind::Double => bytes(1, &random.double().to_le_bytes()),
        Kind::Float => bytes(5, &(random.double() as f32).to_le_bytes()),
        Kind::Text => bytes(2, random.text().as_bytes()),
        Kind::Bytes => {
            let length = random.below(20);
            let value: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            bytes(2, &value);
        }
        Kind::Message(inner) => {
            let mut inside = Vec::new();
            // Deeper messages have fewer fields, so that recursive ones end.
            let percent = if depth > 6 { 0 } else { percent * 2 / 3 };
            write(inner, random, percent, depth + 1, None, &mut inside);
            bytes(2, &inside);
        }
    }
}

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
