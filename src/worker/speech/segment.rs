//! Cuts one channel into regions of speech that fit the recogniser's window.
//! Trusts: nothing; regions and memory are bounded whatever the samples are.
//! Touches: nothing.
//! Next: `region` joins short ones.
//!
//! Pauses shorter than [`PAUSE_LONG`] stay inside a region while it is short enough that the recogniser's smallest window
//! holds it anyway: a window costs the same for one word and for seven seconds.

use std::ops::Range;

use super::numeric::{SAMPLE_RATE, ms_of_samples};
use super::region::Region;
use super::vad::{BATCH, FRAME, VadState};
use super::{SpeechError, SpeechModels};

/// Probability from which a frame begins speech.
const BEGIN: f32 = 0.5;
/// Probability below which a frame may end it (hysteresis, as Silero's own `get_speech_timestamps`).
const END: f32 = 0.35;
/// Frames of quiet that end a stretch of speech, 96 ms.
const QUIET: usize = 3;
/// Frames that a stretch of speech has at least, 160 ms; a shorter one is a click.
const SPEECH_MIN: usize = 5;
/// Frames kept before and after speech, 256 ms: soft onsets and endings are below the thresholds.
const PAD: usize = 8;
/// Frames of quiet that end a region of [`REGION_CHEAP`] or more, 608 ms.
const PAUSE_SHORT: usize = 19;
/// Frames of quiet that end any region, 2 s.
const PAUSE_LONG: usize = 63;
/// Frames of a region that fit the smallest window together with its margin, 7 s.
const REGION_CHEAP: usize = 7 * SAMPLE_RATE / FRAME;
/// Frames in the longest region, 28 s.
const REGION_MAX: usize = 28 * SAMPLE_RATE / FRAME;
/// Frames on either side of a cut through speech that both regions hear, 992 ms.
const OVERLAP: usize = 31;
/// A cut through speech is looked for in this many frames before the end, about 10 s.
const CUT_SEARCH: usize = 312;

/// Samples that a [`Segmenter`] holds at most between two pushes.
#[cfg(test)]
pub const BUFFER_MAX: usize = (REGION_MAX + 2 * PAD + 2 * BATCH) * FRAME;

/// Finds the regions of one channel as its samples come in.
pub struct Segmenter {
    channel: u8,
    vad: VadState,
    /// Samples from `origin` on.
    buffer: Vec<f32>,
    /// Position of the buffer's first sample in the channel.
    origin: usize,
    /// Samples of the buffer that the model has heard.
    heard: usize,
    track: Track,
}

impl Segmenter {
    /// For the channel's first sample.
    pub fn new(models: &SpeechModels, channel: u8) -> Self {
        Self { channel, vad: models.vad.listen(), buffer: Vec::new(), origin: 0, heard: 0, track: Track::default() }
    }

    /// Takes the next samples (16 kHz, -1..=1, any number) and gives the regions that they complete.
    ///
    /// # Errors
    /// [`SpeechError::Vad`] when the model fails.
    pub fn push(&mut self, pcm16k: &[f32]) -> Result<Vec<Region>, SpeechError> {
        let mut regions = Vec::new();
        // In pieces, so that the buffer stays small however much comes at once.
        for piece in pcm16k.chunks(BATCH * FRAME) {
            self.buffer.extend(piece.iter().map(|sample| if sample.is_finite() { *sample } else { 0.0 }));
            while self.buffer.len() - self.heard >= BATCH * FRAME {
                self.hear(BATCH * FRAME, &mut regions)?;
            }
        }
        Ok(regions)
    }

    /// Ends the channel and gives what is left.
    ///
    /// # Errors
    /// [`SpeechError::Vad`] when the model fails.
    pub fn finish(mut self) -> Result<Vec<Region>, SpeechError> {
        let mut regions = Vec::new();
        let rest = self.buffer.len() - self.heard;
        if rest > 0 {
            self.hear(rest, &mut regions)?;
        }
        regions.extend(self.track.finish().map(|span| self.region(span)));
        Ok(regions)
    }

    /// Samples held now.
    #[cfg(test)]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Runs the model over the next `len` samples, at most one batch.
    fn hear(&mut self, len: usize, regions: &mut Vec<Region>) -> Result<(), SpeechError> {
        let fresh = self.buffer.get(self.heard..self.heard + len).unwrap_or_default();
        let probabilities = self.vad.hear(fresh).ok_or(SpeechError::Vad)?;
        self.heard += len;
        for probability in probabilities.into_iter().take(len.div_ceil(FRAME)) {
            let span = self.track.step(probability);
            regions.extend(span.map(|span| self.region(span)));
        }
        // What comes before the next region's padding is not needed again.
        let needed = (self.track.needed_from() * FRAME).clamp(self.origin, self.origin + self.heard);
        let drop = needed - self.origin;
        self.buffer.drain(..drop);
        self.origin += drop;
        self.heard -= drop;
        Ok(())
    }

    fn region(&self, span: Span) -> Region {
        let end = self.origin + self.buffer.len();
        let clip = |frame: usize| (frame * FRAME).clamp(self.origin, end);
        let (from, to) = (clip(span.hear.start), clip(span.hear.end));
        let inside = |range: &Range<usize>| clip(range.start).clamp(from, to) - from..clip(range.end).clamp(from, to) - from;
        Region {
            channel: self.channel,
            start_ms: ms_of_samples(from),
            samples: self.buffer.get(from - self.origin..to - self.origin).unwrap_or_default().to_vec(),
            keep: inside(&span.keep),
            speech: span.speech.iter().map(inside).filter(|range| !range.is_empty()).collect(),
            joints: Vec::new(),
        }
    }
}

/// A region in frames.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    hear: Range<usize>,
    keep: Range<usize>,
    speech: Vec<Range<usize>>,
}

/// The state machine over probabilities; knows no samples.
#[derive(Default)]
struct Track {
    /// Frames seen.
    now: usize,
    /// Frames before this belong to regions that were given out.
    floor: usize,
    /// The next region was cut off from speech: it hears from `floor - OVERLAP` and keeps from `floor`.
    torn: bool,
    /// Closed stretches of speech of the region in the making.
    islands: Vec<Range<usize>>,
    /// First frame of the stretch that goes on.
    talking: Option<usize>,
    /// First quiet frame of the stretch that goes on.
    quiet: Option<usize>,
    /// Probabilities of the last [`CUT_SEARCH`] frames or fewer.
    recent: std::collections::VecDeque<f32>,
}

impl Track {
    /// Takes one frame's probability; gives the region that it completes.
    fn step(&mut self, probability: f32) -> Option<Span> {
        let frame = self.now;
        self.now += 1;
        if self.recent.len() == CUT_SEARCH {
            self.recent.pop_front();
        }
        self.recent.push_back(probability);
        match self.talking {
            None if probability >= BEGIN => self.talking = Some(frame),
            None => {}
            Some(_) if probability >= BEGIN => self.quiet = None,
            Some(start) => {
                if probability < END && self.quiet.is_none() {
                    self.quiet = Some(frame);
                }
                if let Some(quiet) = self.quiet
                    && self.now - quiet >= QUIET
                {
                    self.end_island(start, quiet);
                }
            }
        }
        self.close_if_due()
    }

    fn finish(&mut self) -> Option<Span> {
        if let Some(start) = self.talking {
            let end = self.quiet.unwrap_or(self.now);
            self.end_island(start, end);
        }
        self.close()
    }

    /// First frame whose samples may still be asked for.
    fn needed_from(&self) -> usize {
        match self.first() {
            Some(first) => self.padded_start(first),
            None => self.now.saturating_sub(PAD).max(self.lowest()),
        }
    }

    fn lowest(&self) -> usize {
        if self.torn { self.floor.saturating_sub(OVERLAP) } else { self.floor }
    }

    fn first(&self) -> Option<usize> {
        self.islands.first().map(|island| island.start).or(self.talking)
    }

    fn padded_start(&self, first: usize) -> usize {
        if self.torn { self.lowest() } else { first.saturating_sub(PAD).max(self.floor) }
    }

    fn end_island(&mut self, start: usize, end: usize) {
        self.talking = None;
        self.quiet = None;
        // What follows a torn word is its rest, however short.
        if end - start >= SPEECH_MIN || (self.torn && start == self.floor) {
            self.islands.push(start..end);
        } else if self.islands.is_empty() {
            self.torn = false;
        }
    }

    fn close_if_due(&mut self) -> Option<Span> {
        let start = self.padded_start(self.first()?);
        if self.talking.is_none() {
            let last = self.islands.last()?.end;
            let pause = self.now - last;
            if pause >= PAUSE_LONG || (pause >= PAUSE_SHORT && self.now - start >= REGION_CHEAP) {
                return self.close();
            }
        }
        // A torn region's successor hears past the cut, so room for that is kept.
        if self.now - start >= REGION_MAX { self.cut(start) } else { None }
    }

    /// Gives out everything up to the last stretch of speech.
    fn close(&mut self) -> Option<Span> {
        let (first, last) = (self.islands.first()?.start, self.islands.last()?.end);
        let (start, end) = (self.padded_start(first), (last + PAD).min(self.now));
        let keep = if self.torn { self.floor..end } else { start..end };
        self.floor = end;
        self.torn = false;
        Some(Span { hear: start..end, keep, speech: std::mem::take(&mut self.islands) })
    }

    /// The region is as long as it may be: cuts it in its longest pause, or through speech where that is weakest.
    fn cut(&mut self, start: usize) -> Option<Span> {
        let talking_from = self.talking.or(Some(self.now));
        let pauses = self.islands.iter().zip(self.islands.iter().skip(1).map(|next| Some(next.start)).chain([talking_from]));
        let (_, pause) = pauses
            .filter_map(|(island, next)| Some((island.end, next?)))
            // A pause near the start would leave a sliver and then a full region again.
            .filter(|(end, next)| *next >= *end + QUIET && *end >= start + REGION_MAX / 3)
            .map(|(end, next)| (next - end, end..next))
            .max_by_key(|(length, _)| *length)
            .unzip();
        match pause {
            Some(pause) => {
                let pad = PAD.min(pause.len() / 2);
                let rest = self.islands.iter().position(|island| island.start >= pause.end).unwrap_or(self.islands.len());
                let rest = self.islands.split_off(rest);
                let (end, keep_from) = (pause.start + pad, if self.torn { self.floor } else { start });
                self.floor = pause.end - pad;
                self.torn = false;
                Some(Span { hear: start..end, keep: keep_from..end, speech: std::mem::replace(&mut self.islands, rest) })
            }
            None => Some(self.tear(start)),
        }
    }

    /// Cuts through speech at the least likely frame of the last seconds, leaving each side an overlap.
    fn tear(&mut self, start: usize) -> Span {
        let searched = self.recent.len().saturating_sub(OVERLAP);
        let (weakest, _) = self.recent.iter().take(searched).enumerate().min_by(|one, other| one.1.total_cmp(other.1)).unwrap_or((0, &0.0));
        let at = self.now - self.recent.len() + weakest;
        let end = at + OVERLAP;
        let keep_from = if self.torn { self.floor } else { start };
        let mut speech = std::mem::take(&mut self.islands);
        speech.extend(self.talking.map(|from| from..self.now));
        for island in &speech {
            if island.end > at && self.talking != Some(island.start) {
                self.islands.push(island.start.max(at)..island.end);
            }
        }
        if let Some(from) = self.talking {
            self.talking = Some(from.max(at));
        }
        self.floor = at;
        self.torn = true;
        let heard = speech.iter().map(|island| island.start..island.end.min(end)).filter(|island| !island.is_empty()).collect();
        Span { hear: start..end, keep: keep_from..at, speech: heard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seconds as frames.
    #[expect(clippy::as_conversions, reason = "a few seconds")]
    fn frames(seconds: f32) -> usize {
        (seconds * 31.25) as usize
    }

    /// Runs of (is speech, seconds).
    fn run(parts: &[(bool, f32)]) -> Vec<Span> {
        let mut track = Track::default();
        let mut spans = Vec::new();
        for (speech, seconds) in parts {
            for _ in 0..frames(*seconds) {
                spans.extend(track.step(if *speech { 0.9 } else { 0.1 }));
            }
        }
        spans.extend(track.finish());
        spans
    }

    fn one(stretch: Range<usize>) -> Vec<Range<usize>> {
        std::iter::once(stretch).collect()
    }

    #[test]
    fn a_click_is_no_region() {
        assert_eq!(run(&[(false, 1.0), (true, 0.13), (false, 3.0)]), []);
    }

    #[test]
    fn speech_is_padded_on_both_sides() {
        let spans = run(&[(false, 1.0), (true, 1.0), (false, 3.0)]);

        assert_eq!(spans, [Span { hear: 31 - PAD..62 + PAD, keep: 31 - PAD..62 + PAD, speech: one(31..62) }]);
    }

    #[test]
    fn a_pause_stays_in_a_region_that_fits_the_smallest_window() {
        let spans = run(&[(true, 2.0), (false, 1.5), (true, 2.0), (false, 3.0)]);

        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].speech.len(), 2);
    }

    #[test]
    fn a_pause_ends_a_region_that_has_become_long() {
        let spans = run(&[(true, 8.0), (false, 0.7), (true, 8.0), (false, 0.7)]);

        assert_eq!(spans.len(), 2);
        assert!(spans[0].hear.end <= spans[1].hear.start);
    }

    #[test]
    fn long_speech_is_cut_in_its_longest_pause() {
        let spans = run(&[(true, 12.0), (false, 0.3), (true, 6.0), (false, 0.5), (true, 5.0), (false, 0.2), (true, 9.0)]);

        assert_eq!(spans.len(), 2);
        let pause = frames(12.0) + frames(0.3) + frames(6.0);
        assert!(spans[0].hear.end > pause && spans[0].hear.end <= pause + frames(0.5), "{:?}", spans[0]);
        assert_eq!(spans[0].hear, spans[0].keep);
        assert!(spans[0].hear.end <= spans[1].hear.start);
    }

    #[test]
    fn speech_without_a_pause_is_cut_with_an_overlap() {
        let spans = run(&[(true, 100.0)]);

        assert!(spans.len() >= 4, "{spans:?}");
        for pair in spans.windows(2) {
            assert_eq!(pair[0].keep.end, pair[1].keep.start);
            assert_eq!(pair[0].hear.end - pair[0].keep.end, OVERLAP);
            assert_eq!(pair[1].keep.start - pair[1].hear.start, OVERLAP);
        }
    }

    proptest! {
        #[test]
        fn regions_are_ordered_bounded_and_hold_all_lasting_speech(
            parts in prop::collection::vec((any::<bool>(), 0.03f32..20.0), 1..30), noise in prop::collection::vec(0f32..1.0, 0..400)
        ) {
            let mut track = Track::default();
            let mut spans = Vec::new();
            let mut at = 0;
            let mut lasting = Vec::new();
            for (speech, seconds) in &parts {
                let length = frames(*seconds);
                if *speech && length >= SPEECH_MIN {
                    lasting.push(at..at + length);
                }
                at += length;
                for _ in 0..length {
                    let needed = track.needed_from();
                    let span = track.step(if *speech { 0.9 } else { 0.1 });
                    // Nothing is asked for that may have been dropped.
                    prop_assert!(span.as_ref().is_none_or(|span| span.hear.start >= needed));
                    prop_assert!(track.now - track.needed_from() <= REGION_MAX);
                    spans.extend(span);
                }
            }
            for probability in noise {
                spans.extend(track.step(probability));
                prop_assert!(track.now - track.needed_from() <= REGION_MAX);
            }
            spans.extend(track.finish());
            for span in &spans {
                prop_assert!(span.hear.len() <= REGION_MAX);
                prop_assert!(span.hear.start <= span.keep.start && span.keep.start < span.keep.end && span.keep.end <= span.hear.end);
                prop_assert!(span.speech.is_sorted_by_key(|island| island.start));
                prop_assert!(span.speech.iter().all(|island| !island.is_empty()));
            }
            prop_assert!(spans.windows(2).all(|pair| pair[0].keep.end <= pair[1].keep.start));
            for frame in lasting.into_iter().flatten() {
                prop_assert!(spans.iter().any(|span| span.keep.contains(&frame)), "frame {} of {:?} is lost", frame, spans);
            }
        }
    }
}
