//! GSM 06.10 full rate (ETSI EN 300 961, 3GPP TS 46.010): 33 bytes, or half of a 65-byte block, become 20 ms at 8 kHz.
//! Trusts: nothing; every combination of bits is a sound.
//! Touches: its own state, a few hundred bytes.
//! Next: `own_codec` hands the samples to the decoder.
//!
//! Integer arithmetic as the standard writes it, so that the result is the same to the bit as any other conforming decoder's.
//! Numbers in comments are sections of the standard.

/// Bytes of a frame in a `.gsm` file: four bits of magic and 260 bits of parameters, most significant first.
pub(super) const FRAME_LEN: usize = 33;
/// Bytes of a pair of frames in WAV format 0x31: twice 260 bits, least significant first.
pub(super) const BLOCK_LEN: usize = 65;
/// Samples in a frame.
pub(super) const FRAME_SAMPLES: usize = 160;
/// The high four bits of each frame in a file.
const MAGIC: u8 = 0xd;
/// Samples in a subframe.
const SUBFRAME: usize = 40;
/// Samples that the long-term prediction may look back.
const PAST: usize = 120;

/// Gains of the long-term prediction (4.3.2, table QLB).
const GAINS: [i32; 4] = [3277, 11_469, 21_299, 32_767];
/// Normalised direct mantissa of the block amplitude (table FAC).
const MANTISSAS: [i32; 8] = [18_431, 20_479, 22_527, 24_575, 26_623, 28_671, 30_719, 32_767];
/// For each log-area ratio: bits, B, MIC and 1/A (5.2.8, tables 4.1 and 4.2).
const RATIOS: [(u32, i32, i32, i32); 8] = [
    (6, 0, -32, 13_107),
    (6, 0, -32, 13_107),
    (5, 2048, -16, 13_107),
    (5, -2560, -16, 13_107),
    (4, 94, -8, 19_223),
    (4, -1792, -8, 17_476),
    (3, -341, -4, 31_454),
    (3, -1144, -4, 29_708),
];

/// Whether a frame of a `.gsm` file may begin with this byte.
pub(super) const fn is_frame_start(byte: u8) -> bool {
    byte >> 4 == MAGIC
}

/// The decoder's memory from frame to frame.
#[derive(Debug)]
pub(super) struct Gsm {
    /// The last reconstructed residual, oldest first.
    past: [i32; PAST],
    /// Last valid lag of the long-term prediction.
    lag: usize,
    /// Log-area ratios of the frame before.
    ratios: [i32; 8],
    /// Memory of the lattice filter.
    lattice: [i32; 8],
    /// Memory of the de-emphasis.
    emphasis: i32,
}

impl Gsm {
    /// Home state (4.4).
    pub(super) const fn new() -> Self {
        Self { past: [0; PAST], lag: SUBFRAME, ratios: [0; 8], lattice: [0; 8], emphasis: 0 }
    }

    /// One frame of a `.gsm` file; `None` when its magic is missing.
    pub(super) fn frame(&mut self, bytes: &[u8; FRAME_LEN]) -> Option<[i16; FRAME_SAMPLES]> {
        let mut bits = Bits::new(bytes, Order::MostFirst);
        (bits.take(4) == i32::from(MAGIC)).then(|| self.decode(&mut bits))
    }

    /// The two frames of a block of WAV format 0x31.
    pub(super) fn block(&mut self, bytes: &[u8; BLOCK_LEN]) -> [[i16; FRAME_SAMPLES]; 2] {
        let mut bits = Bits::new(bytes, Order::LeastFirst);
        [self.decode(&mut bits), self.decode(&mut bits)]
    }

    /// 5.3, figure 3.4.
    fn decode(&mut self, bits: &mut Bits<'_>) -> [i16; FRAME_SAMPLES] {
        let ratios = RATIOS.map(|(width, b, mic, inverse)| {
            let decoded = multiply(inverse, saturate(((bits.take(width) + mic) << 10) - (b << 1)));
            saturate(decoded + decoded)
        });
        let mut residual = [0; FRAME_SAMPLES];
        for subframe in residual.chunks_exact_mut(SUBFRAME) {
            self.long_term(bits, subframe);
        }
        self.short_term(ratios, &mut residual);
        residual.map(|sample| self.post_process(sample))
    }

    /// Decodes one subframe's pulses and predicts the rest of the residual from the past (5.3.1, 5.3.2).
    fn long_term(&mut self, bits: &mut Bits<'_>, subframe: &mut [i32]) {
        let lag = usize::try_from(bits.take(7)).unwrap_or(0);
        let gain = GAINS.get(bits.index(2)).copied().unwrap_or(0);
        let grid = bits.index(2);
        let amplitude = bits.take(6);
        if (SUBFRAME..=PAST).contains(&lag) {
            self.lag = lag;
        }
        let (mantissa, exponent) = split_amplitude(amplitude);
        let shift = 6 - exponent;
        let rounding = if shift == 0 { 0 } else { 1 << (shift - 1) };
        subframe.fill(0);
        for slot in subframe.iter_mut().skip(grid).step_by(3).take(13) {
            let pulse = ((bits.take(3) << 1) - 7) << 12;
            *slot = saturate(multiply(mantissa, pulse) + rounding) >> shift;
        }
        let behind = self.past.iter().skip(PAST - self.lag);
        for (slot, past) in subframe.iter_mut().zip(behind) {
            *slot = saturate(*slot + multiply(gain, *past));
        }
        self.past.rotate_left(SUBFRAME);
        for (past, new) in self.past.iter_mut().skip(PAST - SUBFRAME).zip(subframe) {
            *past = *new;
        }
    }

    /// The lattice filter, whose coefficients slide from the last frame's to this one's (5.3.3, 5.2.9, 5.2.10).
    fn short_term(&mut self, ratios: [i32; 8], samples: &mut [i32; FRAME_SAMPLES]) {
        let last = std::mem::replace(&mut self.ratios, ratios);
        let between = |mix: fn(i32, i32) -> i32| {
            let mut coefficients = [0; 8];
            for ((coefficient, last), now) in coefficients.iter_mut().zip(last).zip(ratios) {
                *coefficient = reflection(mix(last, now));
            }
            coefficients
        };
        let (first, rest) = samples.split_at_mut(13);
        let (second, rest) = rest.split_at_mut(14);
        let (third, rest) = rest.split_at_mut(13);
        self.filter(between(|last, now| saturate(saturate((last >> 2) + (now >> 2)) + (last >> 1))), first);
        self.filter(between(|last, now| saturate((last >> 1) + (now >> 1))), second);
        self.filter(between(|last, now| saturate(saturate((last >> 2) + (now >> 2)) + (now >> 1))), third);
        self.filter(between(|_, now| now), rest);
    }

    fn filter(&mut self, coefficients: [i32; 8], samples: &mut [i32]) {
        for sample in samples {
            // From the last stage down; each stage's new value belongs to the stage above it.
            let mut above: Option<&mut i32> = None;
            for (coefficient, memory) in coefficients.iter().zip(&mut self.lattice).rev() {
                *sample = saturate(*sample - multiply(*coefficient, *memory));
                let passed = saturate(*memory + multiply(*coefficient, *sample));
                if let Some(above) = above.replace(memory) {
                    *above = passed;
                }
            }
            if let Some(first) = above {
                *first = *sample;
            }
        }
    }

    /// De-emphasis, scaling and truncation to 13 bits (5.3.4 to 5.3.6).
    fn post_process(&mut self, sample: i32) -> i16 {
        self.emphasis = saturate(sample + multiply(self.emphasis, 28_180));
        i16::try_from(saturate(self.emphasis + self.emphasis) & !7).unwrap_or(0)
    }
}

/// Mantissa and exponent of a coded block amplitude (5.2.15).
fn split_amplitude(coded: i32) -> (i32, i32) {
    let mut exponent = if coded > 15 { (coded >> 3) - 1 } else { 0 };
    let mut mantissa = coded - (exponent << 3);
    if mantissa == 0 {
        (exponent, mantissa) = (-4, 7);
    } else {
        while mantissa <= 7 {
            mantissa = mantissa << 1 | 1;
            exponent -= 1;
        }
        mantissa -= 8;
    }
    (usize::try_from(mantissa).ok().and_then(|index| MANTISSAS.get(index)).copied().unwrap_or(0), exponent)
}

/// A log-area ratio as a reflection coefficient (5.2.9.2).
fn reflection(ratio: i32) -> i32 {
    let size = saturate(ratio.abs());
    let coefficient = match size {
        ..11_059 => size << 1,
        11_059..20_070 => size + 11_059,
        _ => saturate((size >> 2) + 26_112),
    };
    if ratio < 0 { -coefficient } else { coefficient }
}

/// 16 bits, saturated.
fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// Rounded product of two fractions of 15 bits.
fn multiply(a: i32, b: i32) -> i32 {
    saturate((a * b + 0x4000) >> 15)
}

#[derive(Clone, Copy)]
enum Order {
    MostFirst,
    LeastFirst,
}

/// Parameters out of a frame, of up to 7 bits.
struct Bits<'a> {
    bytes: std::slice::Iter<'a, u8>,
    order: Order,
    held: u32,
    count: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8], order: Order) -> Self {
        Self { bytes: bytes.iter(), order, held: 0, count: 0 }
    }

    fn take(&mut self, width: u32) -> i32 {
        if self.count < width {
            let byte = u32::from(self.bytes.next().copied().unwrap_or(0));
            self.held = match self.order {
                Order::MostFirst => self.held << 8 | byte,
                Order::LeastFirst => self.held | byte << self.count,
            };
            self.count += 8;
        }
        self.count -= width;
        let value = match self.order {
            Order::MostFirst => {
                let value = self.held >> self.count;
                self.held &= (1 << self.count) - 1;
                value
            }
            Order::LeastFirst => {
                let value = self.held & ((1 << width) - 1);
                self.held >>= width;
                value
            }
        };
        i32::try_from(value).unwrap_or(0)
    }

    fn index(&mut self, width: u32) -> usize {
        usize::try_from(self.take(width)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a witness says of a recording: 16-bit samples.
    fn witness(program: &str, folder: &Path, arguments: &[&str]) -> Vec<i16> {
        let done = Command::new(program).current_dir(folder).args(arguments).output();
        let done = done.unwrap_or_else(|_| panic!("{program} is missing: apt-get install {program}"));
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    fn frames(bytes: &[u8]) -> Vec<i16> {
        let mut gsm = Gsm::new();
        bytes.chunks_exact(FRAME_LEN).flat_map(|frame| gsm.frame(frame.try_into().unwrap()).unwrap()).collect()
    }

    fn blocks(bytes: &[u8]) -> Vec<i16> {
        let mut gsm = Gsm::new();
        bytes.chunks_exact(BLOCK_LEN).flat_map(|block| gsm.block(block.try_into().unwrap())).flatten().collect()
    }

    /// Speech would not reach every corner; random bits with the magic in place do.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect()
    }

    // ffmpeg does not saturate everywhere, so it is a witness for speech only; sox follows the standard for any bits.
    #[test]
    fn any_frames_decode_to_the_bit_as_sox_decodes_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = noise(3000 * FRAME_LEN);
        bytes.iter_mut().step_by(FRAME_LEN).for_each(|byte| *byte = MAGIC << 4 | *byte & 0xf);
        std::fs::write(folder.path().join("noise.gsm"), &bytes).unwrap();

        let ours = frames(&bytes);

        assert_eq!(ours.len(), 3000 * FRAME_SAMPLES);
        assert!(ours == witness("sox", folder.path(), &["noise.gsm", "-t", "s16", "-"]), "sox differs");
    }

    #[test]
    fn speech_decodes_to_the_bit_as_sox_and_ffmpeg_decode_it_in_files_and_in_wav() {
        let folder = tempfile::tempdir().unwrap();
        let speech = ["-n", "-r", "8000", "speech.gsm", "synth", "4", "sine", "300-3000", "tremolo", "5", "60"];
        witness("sox", folder.path(), &speech);
        witness("sox", folder.path(), &["speech.gsm", "-e", "gsm-full-rate", "speech.wav"]);
        let [plain, wav] = ["speech.gsm", "speech.wav"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
        let data = wav.windows(4).position(|name| name == b"data").unwrap() + 8;

        assert!(frames(&plain) == witness("sox", folder.path(), &["speech.gsm", "-t", "s16", "-"]), "file, sox");
        let ffmpeg = witness("ffmpeg", folder.path(), &["-v", "error", "-i", "speech.gsm", "-f", "s16le", "-"]);
        assert!(frames(&plain) == ffmpeg, "file, ffmpeg");
        assert!(blocks(&wav[data..]) == witness("sox", folder.path(), &["speech.wav", "-t", "s16", "-"]), "WAV, sox");
        let ffmpeg = witness("ffmpeg", folder.path(), &["-v", "error", "-i", "speech.wav", "-f", "s16le", "-"]);
        assert!(blocks(&wav[data..]) == ffmpeg, "WAV, ffmpeg");
    }

    proptest! {
        #[test]
        fn no_bits_overflow(bytes in prop::collection::vec(any::<[u8; BLOCK_LEN - FRAME_LEN + 1]>(), 1..200)) {
            let mut gsm = Gsm::new();
            for frame in bytes {
                let mut frame: [u8; FRAME_LEN] = frame;
                frame[0] |= 0xd0;
                prop_assert_eq!(gsm.frame(&frame).is_some(), frame[0] >> 4 == MAGIC);
            }
        }
    }
}
