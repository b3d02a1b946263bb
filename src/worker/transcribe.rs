//! One recording's way through the child: decode > speech > transcript > redact > sent.
//! Trusts: nothing of the recording; limits are checked by each step.
//! Touches: the channel, and as many threads as the task allows.
//! Next: `decode`, `speech`, `text`; the result leaves as `ChildEvent`s.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::decode::{DecodeLimits, Decoder};
use super::models::Models;
use super::source::ChannelSource;
use super::speech::{Joiner, Region, Segmenter, SpeechError, SpeechModels};
use super::text;
use crate::ipc::channel::Channel;
use crate::ipc::transcript::{Entity, Utterance};
use crate::ipc::worker::{CallFailure, ChildEvent, RawSamples, Stage, StageTime, Summary};

/// Speech regions that wait for a thread; each is at most half a minute, so this bounds the memory of a call of any length.
const REGIONS_WAITING_MAX: usize = 6;
/// Frames of 10 ms in the windows that a thread reads together: two of the longest, six of the shortest. It bounds the memory of a thread.
const FRAMES_TOGETHER: usize = 6000;
/// Share of the progress bar for decoding, per mille.
const SHARE_DECODE: u64 = 50;
/// Share of the progress bar for transcription, per mille.
const SHARE_TRANSCRIBE: u64 = 850;

/// Transcribes and redacts the recording behind the channel and sends its utterances.
///
/// # Errors
/// The one reason why this recording has no transcript.
pub fn transcribe(
    models: &Models,
    channel: &Arc<Channel>,
    audio_bytes: u64,
    samples: Option<RawSamples>,
    language: Option<String>,
    threads: u8,
    max_audio_seconds: u32,
) -> Result<Summary, CallFailure> {
    let began = Instant::now();
    let source = ChannelSource::new(Arc::clone(channel), audio_bytes);
    let limits = DecodeLimits { max_seconds: max_audio_seconds };
    let decoder = match samples {
        Some(samples) => Decoder::open_samples(Box::new(source), samples, limits),
        None => Decoder::open(Box::new(source), limits),
    }?;
    send(channel, &ChildEvent::Audio(decoder.info()))?;

    let call = Call { models, channel, language, audio_bytes, progress: Progress::new(), times: Times::default() };
    let clear = call.hear(decoder, threads)?;
    let redacted = call.redact(&clear)?;

    let counts = text::count(redacted.iter().flat_map(|(_, entities)| entities));
    let whole: Vec<String> = clear.iter().map(Utterance::text).collect();
    let summary = Summary {
        audio_ms: call.progress.decoded_ms.load(Ordering::Relaxed),
        speech_ms: call.progress.speech_ms.load(Ordering::Relaxed),
        utterances: u32::try_from(clear.len()).map_err(|_| CallFailure::TooLong)?,
        counts,
        language: models.text.language(&whole.join(" ")),
        stages: call.times.stages(),
        wall_ms: millis(began.elapsed()),
    };
    for (clear, (redacted, entities)) in clear.into_iter().zip(redacted) {
        send(channel, &ChildEvent::Utterance { redacted, clear, entities })?;
    }
    Ok(summary)
}

/// Regions on their way to the threads that transcribe.
struct Queue {
    regions: Receiver<Region>,
    /// Did not fit with those before it.
    next: Option<Region>,
}

impl Queue {
    /// Waits for a region and takes those that are there already, as many as are read together; none when there will be no more.
    fn take(&mut self) -> Vec<Region> {
        let mut together = Vec::new();
        let mut frames = 0;
        loop {
            let next =
                self.next.take().or_else(|| if together.is_empty() { self.regions.recv().ok() } else { self.regions.try_recv().ok() });
            let Some(region) = next else { return together };
            frames += SpeechModels::window_frames(&region);
            if frames > FRAMES_TOGETHER {
                self.next = Some(region);
                return together;
            }
            together.push(region);
        }
    }
}

struct Call<'a> {
    models: &'a Models,
    channel: &'a Channel,
    language: Option<String>,
    audio_bytes: u64,
    progress: Progress,
    times: Times,
}

impl Call<'_> {
    /// Decodes on this thread and transcribes on `threads` others; utterances come back in order of time.
    fn hear(&self, decoder: Decoder, threads: u8) -> Result<Vec<Utterance>, CallFailure> {
        let (to_threads, regions) = sync_channel::<Region>(REGIONS_WAITING_MAX);
        let regions = Mutex::new(Queue { regions, next: None });
        let heard = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(|| self.transcribe_regions(&regions))).collect();
            let decoded = self.decode(decoder, &to_threads);
            drop(to_threads);
            let heard: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap_or(Err(CallFailure::ModelFailed))).collect();
            decoded.map(|()| heard)
        })?;
        let mut utterances = Vec::new();
        for of_thread in heard {
            utterances.extend(of_thread?);
        }
        utterances.sort_by_key(|utterance| (utterance.start_ms, utterance.channel));
        Ok(utterances)
    }

    fn decode(&self, mut decoder: Decoder, regions: &SyncSender<Region>) -> Result<(), CallFailure> {
        let channels = decoder.info().channels;
        let joins = self.models.speech.may_join(self.language.as_deref());
        let line = |channel| Line { segmenter: Segmenter::new(&self.models.speech, channel), joiner: joins.then(Joiner::default) };
        let mut lines: Vec<Line> = (0..channels).map(line).collect();
        let mut block = vec![Vec::new(); usize::from(channels)];
        loop {
            block.iter_mut().for_each(Vec::clear);
            let more = self.times.of(Stage::Decode, || decoder.next_block(&mut block))?;
            self.progress.add_samples(block.first().map_or(0, Vec::len));
            for (line, samples) in lines.iter_mut().zip(&block) {
                let found = self.times.of(Stage::Speech, || line.push(samples)).map_err(model_failed)?;
                self.queue(found, regions)?;
            }
            self.progress.read(decoder.position(), self.audio_bytes);
            self.report(Stage::Speech)?;
            if !more {
                break;
            }
        }
        for line in lines {
            let found = self.times.of(Stage::Speech, || line.finish()).map_err(model_failed)?;
            self.queue(found, regions)?;
        }
        Ok(())
    }

    fn queue(&self, found: Vec<Region>, regions: &SyncSender<Region>) -> Result<(), CallFailure> {
        for region in found {
            self.progress.speech_ms.fetch_add(region.speech_ms().into(), Ordering::Relaxed);
            // The receiving side outlives this loop: an error here is a fault of ours.
            regions.send(region).map_err(|_| CallFailure::ModelFailed)?;
        }
        Ok(())
    }

    /// Runs until the queue is closed: after a failure it only drains, so that decoding never waits for nobody.
    fn transcribe_regions(&self, regions: &Mutex<Queue>) -> Result<Vec<Utterance>, CallFailure> {
        let mut heard = Ok(Vec::new());
        loop {
            let together = regions.lock().unwrap_or_else(PoisonError::into_inner).take();
            if together.is_empty() {
                return heard;
            }
            if let Ok(utterances) = &mut heard {
                match self.transcribe_together(&together) {
                    Ok(more) => utterances.extend(more),
                    Err(failure) => heard = Err(failure),
                }
            }
        }
    }

    fn transcribe_together(&self, regions: &[Region]) -> Result<Vec<Utterance>, CallFailure> {
        let heard = self.times.of(Stage::Transcribe, || self.models.speech.transcribe(regions, self.language.as_deref()));
        let speech: u64 = regions.iter().map(|region| u64::from(region.speech_ms())).sum();
        self.progress.transcribed_ms.fetch_add(speech, Ordering::Relaxed);
        self.report(Stage::Transcribe)?;
        Ok(heard.map_err(model_failed)?.into_iter().flatten().collect())
    }

    fn redact(&self, clear: &[Utterance]) -> Result<Vec<(Utterance, Vec<Entity>)>, CallFailure> {
        let mut report = |done: u16| {
            // A peer that is gone is noticed at the next message that matters.
            let _ = self.send_progress(Stage::Redact, SHARE_DECODE + SHARE_TRANSCRIBE + u64::from(done) / 10);
        };
        self.times.of(Stage::Redact, || self.models.text.redact_call(clear, &mut report)).map_err(|_| CallFailure::ModelFailed)
    }

    fn report(&self, stage: Stage) -> Result<(), CallFailure> {
        self.send_progress(stage, self.progress.per_mille())
    }

    /// Decoding and transcribing threads report at once: what was shown is never taken back.
    fn send_progress(&self, stage: Stage, per_mille: u64) -> Result<(), CallFailure> {
        let mut shown = self.progress.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (shown.0.max(stage), shown.1.max(u16::try_from(per_mille.min(1000)).unwrap_or(1000)));
        if now == *shown {
            return Ok(());
        }
        *shown = now;
        let audio_ms = self.progress.decoded_ms.load(Ordering::Relaxed);
        send(self.channel, &ChildEvent::Progress { stage: now.0, per_mille: now.1, audio_ms })
    }
}

/// One channel of a call on its way to regions.
struct Line {
    segmenter: Segmenter,
    /// Absent when regions have to stay apart.
    joiner: Option<Joiner>,
}

impl Line {
    fn push(&mut self, samples: &[f32]) -> Result<Vec<Region>, SpeechError> {
        Ok(joined(&mut self.joiner, self.segmenter.push(samples)?))
    }

    fn finish(mut self) -> Result<Vec<Region>, SpeechError> {
        let mut found = joined(&mut self.joiner, self.segmenter.finish()?);
        found.extend(self.joiner.and_then(Joiner::finish));
        Ok(found)
    }
}

fn joined(joiner: &mut Option<Joiner>, found: Vec<Region>) -> Vec<Region> {
    match joiner {
        Some(joiner) => found.into_iter().filter_map(|region| joiner.push(region)).collect(),
        None => found,
    }
}

/// How far the call is. Shared by the decoding and the transcribing threads.
struct Progress {
    samples: AtomicU64,
    decoded_ms: AtomicU64,
    decoded_per_mille: AtomicU64,
    speech_ms: AtomicU64,
    transcribed_ms: AtomicU64,
    shown: Mutex<(Stage, u16)>,
}

impl Progress {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            samples: zero(),
            decoded_ms: zero(),
            decoded_per_mille: zero(),
            speech_ms: zero(),
            transcribed_ms: zero(),
            shown: Mutex::new((Stage::Decode, 0)),
        }
    }

    fn add_samples(&self, count: usize) {
        let samples = self.samples.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        let total = samples.saturating_add(u64::try_from(count).unwrap_or(0));
        self.decoded_ms.store(total / 16, Ordering::Relaxed);
    }

    fn read(&self, position: u64, of: u64) {
        let share = position.saturating_mul(1000).checked_div(of).unwrap_or(0).min(1000);
        self.decoded_per_mille.store(share, Ordering::Relaxed);
    }

    /// Decoding counts little, transcription much; transcription is measured against the speech found so far.
    fn per_mille(&self) -> u64 {
        let decoded = self.decoded_per_mille.load(Ordering::Relaxed);
        let speech = self.speech_ms.load(Ordering::Relaxed);
        let transcribed = self.transcribed_ms.load(Ordering::Relaxed).min(speech);
        let of_found = transcribed.saturating_mul(decoded).checked_div(speech).unwrap_or(0);
        (decoded * SHARE_DECODE + of_found * SHARE_TRANSCRIBE) / 1000
    }
}

/// Busy time by stage, summed over threads.
#[derive(Default)]
struct Times(Mutex<BTreeMap<Stage, Duration>>);

impl Times {
    fn of<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *times.entry(stage).or_default() += began.elapsed();
        done
    }

    fn stages(&self) -> Vec<StageTime> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().map(|(&stage, &busy)| StageTime { stage, millis: millis(busy) }).collect()
    }
}

fn send(channel: &Channel, event: &ChildEvent) -> Result<(), CallFailure> {
    // When `salamad` no longer listens, the call was cancelled or the daemon is gone: nobody reads the reason.
    channel.send(event).map_err(|_| CallFailure::WorkerDied)
}

/// The cause stays in the child, which can tell nobody: an error of a model may hold content.
fn model_failed(_: SpeechError) -> CallFailure {
    CallFailure::ModelFailed
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_never_passes_what_was_read() {
        let progress = Progress::new();
        progress.read(50, 100);
        progress.speech_ms.store(10_000, Ordering::Relaxed);
        progress.transcribed_ms.store(10_000, Ordering::Relaxed);
        assert_eq!(progress.per_mille(), 450);
    }

    #[test]
    fn regions_are_read_together_until_their_windows_fill_the_room() {
        let (sender, regions) = sync_channel(10);
        // Windows of 20, 20, 30 and 10 s: the clip, its margin, at least 10 s.
        for seconds in [17, 17, 27, 2] {
            sender.send(Region::whole(0, 0, vec![0.0; seconds * 16_000])).expect("room");
        }
        drop(sender);
        let mut queue = Queue { regions, next: None };

        let taken: Vec<usize> = std::iter::repeat_with(|| queue.take().len()).take_while(|taken| *taken > 0).collect();

        assert_eq!(taken, [2, 2]);
    }

    #[test]
    fn a_recording_of_no_bytes_has_no_progress() {
        let progress = Progress::new();
        progress.read(0, 0);
        assert_eq!(progress.per_mille(), 0);
    }
}
