//! Bends inputs: flips, cuts, splices, interesting numbers, lengths that lie, words of the format.
//! Trusts: nothing.
//! Touches: nothing; the same seed bends the same way everywhere.
//! Next: `runner` gives the result to a target.

/// A small generator (Steele, Lea, Flood 2014: SplitMix64): every seed is a good one, and it never changes.
pub struct Dice(u64);

impl Dice {
    /// From a number.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`; 0 for an empty range.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        // Short pieces mostly, long ones now and then.
        let most = if self.below(4) == 0 { len - start } else { (len - start).min(16) };
        start..start + self.below(most + 1)
    }
}

/// Numbers at which parsers break.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    7,
    8,
    16,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x3ff,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// One to eight bends of one of `seeds`, at most `longest` bytes.
pub fn bent(dice: &mut Dice, seeds: &[Vec<u8>], words: &[&[u8]], longest: usize) -> Vec<u8> {
    let mut bytes = seeds.get(dice.below(seeds.len())).cloned().unwrap_or_default();
    let bends = 1 + dice.below(2) + if dice.below(3) == 0 { dice.below(7) } else { 0 };
    for _ in 0..bends {
        bend(dice, &mut bytes, seeds, words);
    }
    bytes.truncate(longest);
    bytes
}

fn bend(dice: &mut Dice, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&[u8]]) {
    let len = bytes.len();
    match dice.below(13) {
        0 | 1 if len > 0 => bytes[dice.below(len)] ^= 1 << dice.below(8),
        2 if len > 0 => bytes[dice.below(len)] = dice.byte(),
        3 => bytes.truncate(dice.below(len + 1)),
        4 => drop(bytes.drain(dice.range(len))),
        5 => {
            let piece = bytes[dice.range(len)].to_vec();
            insert(bytes, dice.below(len + 1), &piece);
        }
        6 => {
            let piece: Vec<u8> = (0..=dice.below(8)).map(|_| dice.byte()).collect();
            insert(bytes, dice.below(len + 1), &piece);
        }
        7 if !words.is_empty() => {
            let word = dice.of(words);
            let at = dice.below(len + 1);
            if dice.below(2) == 0 { insert(bytes, at, word) } else { overwrite(bytes, at, word) }
        }
        8 => splice(dice, bytes, seeds),
        9 => {
            let (value, at) = (NUMBERS[dice.below(NUMBERS.len())], dice.below(len));
            number(dice, bytes, at, value);
        }
        10 => length_lie(dice, bytes),
        11 => step(dice, bytes),
        _ => digits(dice, bytes),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = bytes.len().min(at + piece.len());
    bytes.splice(at..end, piece.iter().copied());
}

/// The beginning of one input and the end of another, or a piece of the other in the middle.
fn splice(dice: &mut Dice, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let Some(other) = seeds.get(dice.below(seeds.len())) else { return };
    if dice.below(2) == 0 {
        bytes.truncate(dice.below(bytes.len() + 1));
        bytes.extend_from_slice(&other[dice.below(other.len() + 1)..]);
    } else {
        let piece = &other[dice.range(other.len())];
        overwrite(bytes, dice.below(bytes.len() + 1), piece);
    }
}

/// Writes `value` in one of the widths and byte orders.
fn number(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize, value: u64) {
    let width = [1, 2, 3, 4, 8][dice.below(5)];
    let mut field = value.to_le_bytes()[..width].to_vec();
    if dice.below(2) == 0 {
        field.reverse();
    }
    overwrite(bytes, at, &field);
}

/// A number near to how many bytes follow, or to how many there are: a length that is almost true.
fn length_lie(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let at = dice.below(bytes.len());
    let base = if dice.below(2) == 0 { bytes.len() - at } else { bytes.len() };
    let value = (base as u64).wrapping_add(dice.below(33) as u64).wrapping_sub(16);
    number(dice, bytes, at, value);
}

/// A little more or less in a field of 16 or 32 bits.
fn step(dice: &mut Dice, bytes: &mut [u8]) {
    let by = dice.below(71) as u32;
    let by = if dice.below(2) == 0 { by } else { by.wrapping_neg() };
    let at = dice.below(bytes.len());
    let big = dice.below(2) == 0;
    if let Some(field) = bytes.get_mut(at..at + 4).and_then(|field| <&mut [u8; 4]>::try_from(field).ok()) {
        *field = if big {
            u32::from_be_bytes(*field).wrapping_add(by).to_be_bytes()
        } else {
            u32::from_le_bytes(*field).wrapping_add(by).to_le_bytes()
        };
    }
}

/// Another number in place of one that is written in digits.
fn digits(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
    let Some(start) = starts.get(dice.below(starts.len())).copied() else { return };
    let run = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = NUMBERS[dice.below(NUMBERS.len())].to_string();
    let sign: &[u8] = if dice.below(4) == 0 { b"-" } else { b"" };
    bytes.splice(start..start + run, sign.iter().copied().chain(value.bytes()));
}
