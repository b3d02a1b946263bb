//! Stretches of speech of one channel, as the recogniser reads them, and short ones joined to one.
//! Trusts: nothing; a joined region is as bounded as others.
//! Touches: nothing.
//! Next: `SpeechModels::transcribe`, several regions at a time.
//!
//! A window costs the same for one word and for seven seconds, and people who take turns are silent half of the time: joined, their
//! speech needs fewer and fuller windows.

use std::ops::Range;

use super::numeric::{SAMPLE_RATE, ms_of_samples};

/// Samples of a joined region at most, 17 s: they fill a window of 20 s, see ADR 15.
const JOINED_MAX: usize = 17 * SAMPLE_RATE;
/// Samples of silence between two regions that are joined, 256 ms. With what regions have beside their speech that makes a pause
/// between utterances.
const GAP: usize = SAMPLE_RATE * 256 / 1000;

/// Speech of one channel, at most about 28 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Channel of the recording, counted from 0.
    pub channel: u8,
    /// Time of the first sample from the start of the recording, milliseconds.
    pub start_ms: u32,
    /// 16 kHz, -1..=1.
    pub samples: Vec<f32>,
    /// The samples whose words belong to this region. Where speech had to be cut, the neighbour hears the rest too.
    pub keep: Range<usize>,
    /// The stretches of `samples` that are speech, in order.
    pub speech: Vec<Range<usize>>,
    /// Where silence was left out, in order.
    pub joints: Vec<Joint>,
}

/// Silence that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joint {
    /// The samples before this one are of the part before it.
    end: usize,
    /// The samples from this one on are of the part after it; between them is silence.
    begin: usize,
    /// When the part after it begins in the recording, milliseconds.
    start_ms: u32,
}

impl Joint {
    /// Half of the silence belongs to each side.
    const fn border(&self) -> usize {
        self.end.midpoint(self.begin)
    }
}

impl Region {
    /// Takes all of `samples` for one stretch of speech.
    pub fn whole(channel: u8, start_ms: u32, samples: Vec<f32>) -> Self {
        let all = 0..samples.len();
        Self { channel, start_ms, samples, keep: all.clone(), speech: vec![all], joints: Vec::new() }
    }

    /// Speech in the kept part, milliseconds.
    pub fn speech_ms(&self) -> u32 {
        let kept = |range: &Range<usize>| range.end.min(self.keep.end).saturating_sub(range.start.max(self.keep.start));
        ms_of_samples(self.speech.iter().map(kept).sum())
    }

    /// When a sample was heard, milliseconds from the start of the recording. The silence of a joint belongs to both sides.
    pub fn ms_at(&self, sample: usize) -> u32 {
        let joint = self.joints.iter().rev().find(|joint| joint.border() <= sample);
        let (from, start_ms) = joint.map_or((0, self.start_ms), |joint| (joint.begin, joint.start_ms));
        match sample.checked_sub(from) {
            Some(after) => start_ms.saturating_add(ms_of_samples(after)),
            None => start_ms.saturating_sub(ms_of_samples(from - sample)),
        }
    }

    /// When it begins and ends in the recording, milliseconds; of one that was not joined.
    pub fn times(&self) -> Range<u32> {
        self.start_ms..self.ms_at(self.samples.len())
    }

    /// The number of the part that the middle of `at` lies in, and as much of `at` as lies in it; half of the silence between two parts
    /// belongs to each.
    pub fn part_of(&self, at: &Range<usize>) -> (usize, Range<usize>) {
        let number = self.joints.iter().take_while(|joint| joint.border() <= at.start.midpoint(at.end)).count();
        let begin = number.checked_sub(1).and_then(|before| self.joints.get(before)).map_or(0, Joint::border);
        let end = self.joints.get(number).map_or(self.samples.len(), |joint| joint.border().saturating_sub(1));
        (number, at.start.clamp(begin, end)..at.end.clamp(begin, end))
    }

    /// What it was joined of; nothing when it was not joined.
    pub fn parts(&self) -> Vec<Self> {
        if self.joints.is_empty() {
            return Vec::new();
        }
        let begins = [(0, self.start_ms)].into_iter().chain(self.joints.iter().map(|joint| (joint.begin, joint.start_ms)));
        let ends = self.joints.iter().map(|joint| joint.end).chain([self.samples.len()]);
        let part = |((begin, start_ms), end): ((usize, u32), usize)| {
            let inside = self.speech.iter().filter(|speech| begin <= speech.start && speech.end <= end);
            let samples = self.samples.get(begin..end).unwrap_or_default().to_vec();
            let speech = inside.map(|speech| speech.start - begin..speech.end - begin).collect();
            Self { speech, ..Self::whole(self.channel, start_ms, samples) }
        };
        begins.zip(ends).map(part).collect()
    }

    /// Adds the next region of the channel, unless together they are too long or one shares its words with a neighbour.
    fn join(&mut self, next: Self) -> Option<Self> {
        let is_whole = |region: &Self| region.keep == (0..region.samples.len());
        let end = self.samples.len();
        let begin = end + GAP;
        let apart = self.ms_at(end).saturating_add(ms_of_samples(GAP)) <= next.start_ms;
        if !apart || !is_whole(self) || !is_whole(&next) || begin + next.samples.len() > JOINED_MAX {
            return Some(next);
        }
        self.joints.push(Joint { end, begin, start_ms: next.start_ms });
        self.samples.resize(begin, 0.0);
        self.samples.extend_from_slice(&next.samples);
        self.speech.extend(next.speech.into_iter().map(|speech| speech.start + begin..speech.end + begin));
        self.keep = 0..self.samples.len();
        None
    }
}

/// Joins the regions of one channel as they come.
#[derive(Default)]
pub struct Joiner {
    waiting: Option<Region>,
}

impl Joiner {
    /// Takes the next region; gives one that will not become longer.
    pub fn push(&mut self, region: Region) -> Option<Region> {
        match &mut self.waiting {
            Some(waiting) => waiting.join(region).and_then(|next| self.waiting.replace(next)),
            None => {
                self.waiting = Some(region);
                None
            }
        }
    }

    /// The last one.
    pub fn finish(self) -> Option<Region> {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: usize = SAMPLE_RATE;

    /// `seconds` of one number, from `start_ms` on, speech but for a quarter of a second on either side.
    fn region(start_ms: u32, seconds: usize, value: f32) -> Region {
        let samples = vec![value; seconds * SECOND];
        let speech = std::iter::once(SECOND / 4..samples.len() - SECOND / 4).collect();
        Region { speech, ..Region::whole(1, start_ms, samples) }
    }

    fn joined(regions: Vec<Region>) -> Vec<Region> {
        let mut joiner = Joiner::default();
        let mut all: Vec<Region> = regions.into_iter().filter_map(|region| joiner.push(region)).collect();
        all.extend(joiner.finish());
        all
    }

    #[test]
    fn short_regions_become_one_whose_samples_know_when_they_were_heard() {
        let all = joined(vec![region(1000, 2, 0.1), region(9000, 3, 0.2), region(20_000, 1, 0.3)]);

        assert_eq!(all.len(), 1);
        let one = &all[0];
        assert_eq!(one.samples.len(), 6 * SECOND + 2 * GAP);
        assert_eq!((one.ms_at(0), one.ms_at(2 * SECOND)), (1000, 3000));
        assert_eq!(one.ms_at(2 * SECOND + GAP), 9000);
        assert_eq!(one.ms_at(2 * SECOND + GAP - SECOND / 16), 8938, "the later half of the silence is the next part's");
        assert_eq!(one.ms_at(one.samples.len()), 21_000);
        assert_eq!(one.speech_ms(), 4500);
        let times: Vec<u32> = (0..one.samples.len()).step_by(100).map(|sample| one.ms_at(sample)).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn a_word_lies_in_one_part_only() {
        let one = &joined(vec![region(1000, 2, 0.1), region(9000, 3, 0.2)])[0];
        let (end, begin) = (2 * SECOND, 2 * SECOND + GAP);
        let border = end.midpoint(begin);

        assert_eq!(one.part_of(&(100..200)), (0, 100..200));
        assert_eq!(one.part_of(&(end - 5000..begin)), (0, end - 5000..border - 1));
        assert_eq!(one.part_of(&(end..begin + 5000)), (1, border..begin + 5000));
        assert_eq!(one.part_of(&(border..border)), (1, border..border));
        assert_eq!(one.ms_at(border - 1), 3127, "the silence after the first part is the first part's");
        assert_eq!(one.parts()[1].times(), 9000..12_000);
    }

    #[test]
    fn a_joined_region_comes_apart_again() {
        let parts = vec![region(1000, 2, 0.1), region(9000, 3, 0.2), region(20_000, 1, 0.3)];

        assert_eq!(joined(parts.clone())[0].parts(), parts);
        assert_eq!(parts[0].parts(), []);
    }

    #[test]
    fn regions_that_together_are_too_long_stay_apart() {
        let regions = vec![region(0, 10, 0.1), region(15_000, 9, 0.2), region(40_000, 4, 0.3)];

        let all = joined(regions.clone());

        assert_eq!(all[0], regions[0]);
        assert_eq!(all[1].parts(), regions[1..]);
        assert!(all.iter().all(|region| region.samples.len() <= JOINED_MAX));
    }

    #[test]
    fn regions_that_share_words_or_touch_stay_as_they_are() {
        let torn = Region { keep: 0..SECOND, ..region(0, 2, 0.1) };
        let regions = vec![torn, region(5000, 2, 0.2), region(7100, 1, 0.3)];

        assert_eq!(joined(regions.clone()), regions);
    }
}
