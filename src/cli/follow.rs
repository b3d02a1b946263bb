//! Following a call: its events from the appliance, bars or lines for the person.
//! Trusts: nothing; an event that is not understood is left out.
//! Touches: standard error; standard output with `--json`.
//! Next: the command that followed.

use std::time::Duration;

use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, clock};
use super::sse::Parser;
use crate::base::ids::CallId;
use crate::ipc::worker::{CallFailure, Stage};
use crate::job::spec::{CallEvent, CallHappening, CallState, CallView};

/// Reconnections without a single event in between.
const ATTEMPTS: u32 = 8;
/// The appliance sends a heartbeat every fifteen seconds.
const SILENCE: Duration = Duration::from_secs(50);

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) state: CallState,
    pub(super) failure: Option<CallFailure>,
}

impl End {
    /// Anything but a transcript is a failure of the command.
    pub(super) fn verdict(self) -> Result<(), Failure> {
        match (self.state, self.failure) {
            (CallState::Done, _) => Ok(()),
            (CallState::Failed, Some(failure)) => Err(Failure::CallFailed(failure)),
            (CallState::Cancelled, _) => Err(Failure::CallCancelled),
            (state, _) => Err(Failure::CallEnded(state)),
        }
    }
}

/// Follows `call` to its end. `each` sees every event.
pub(super) async fn follow(client: &Client, call: CallId, mut each: impl FnMut(&CallEvent) -> Result<(), Failure>) -> Result<End, Failure> {
    let path = format!("/api/v1/calls/{call}/events");
    let (mut last, mut failures) = (None::<String>, 0);
    loop {
        let before = last.clone();
        match listen(client, &path, &mut last, &mut each).await {
            Ok(Some(end)) => return Ok(end),
            Ok(None) => {
                // The stream ended early or there was nothing new: the call itself says whether more will come.
                let view: CallView = client.get(&format!("/api/v1/calls/{call}")).await?;
                if view.state.is_final() {
                    return Ok(End { state: view.state, failure: view.failure });
                }
            }
            Err(failure) if failure.is_retryable() && failures < ATTEMPTS => {}
            Err(failure) => return Err(failure),
        }
        failures = if last == before { failures + 1 } else { 0 };
        if failures > ATTEMPTS {
            return Err(Failure::Reply("the stream of events ends again and again without an event".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(250) * 2_u32.saturating_pow(failures.min(4))).await;
    }
}

/// One connection's worth of events.
async fn listen(
    client: &Client,
    path: &str,
    last: &mut Option<String>,
    each: &mut impl FnMut(&CallEvent) -> Result<(), Failure>,
) -> Result<Option<End>, Failure> {
    let Some(mut body) = client.events(path, last.as_deref()).await? else { return Ok(None) };
    let mut parser = Parser::default();
    loop {
        let Ok(piece) = tokio::time::timeout(SILENCE, client.piece(&mut body)).await else { return Ok(None) };
        let Some(piece) = piece? else { return Ok(None) };
        for event in parser.push(&piece).map_err(|error| Failure::Reply(error.to_string()))? {
            last.clone_from(&event.id);
            let number = event.id.as_deref().and_then(|id| id.parse().ok()).unwrap_or(0);
            let Ok(what) = serde_json::from_str::<CallHappening>(&event.data) else { continue };
            let event = CallEvent { number, what };
            each(&event)?;
            if let CallHappening::State { state, failure } = event.what
                && state.is_final()
            {
                drop(body.boxed());
                return Ok(Some(End { state, failure }));
            }
        }
    }
}

/// Shows a call's events on standard error: a bar for a terminal, lines otherwise.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    output: Output,
    shown: Option<(Stage, u8)>,
}

impl Display {
    pub(super) fn new(output: Output) -> Self {
        let bar = output.moves().then(|| {
            let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
            bar.set_style(style("{msg:10} {bar:32} {pos:>3} %  {prefix}"));
            bar
        });
        Self { bar, output, shown: None }
    }

    pub(super) fn show(&mut self, event: &CallEvent) {
        match event.what {
            CallHappening::State { state, failure } => {
                if state.is_final()
                    && let Some(bar) = self.bar.take()
                {
                    bar.finish_and_clear();
                }
                match failure {
                    Some(failure) => self.output.note(&format!("{}: {failure}", state.word())),
                    None => self.say(state.word()),
                }
            }
            CallHappening::Progress { stage, percent, audio_ms, elapsed_ms } => self.progress(stage, percent, audio_ms, elapsed_ms),
        }
    }

    fn progress(&mut self, stage: Stage, percent: u8, audio_ms: u64, elapsed_ms: u64) {
        let times = times(percent, audio_ms, elapsed_ms);
        if let Some(bar) = &self.bar {
            bar.set_position(u64::from(percent));
            bar.set_message(stage_word(stage));
            bar.set_prefix(times);
        } else if self.shown != Some((stage, percent / 10)) {
            // A log wants a line for each stage and each ten per cent, not for each event.
            self.shown = Some((stage, percent / 10));
            self.output.note(&format!("{:10} {percent:>3} %  {times}", stage_word(stage)));
        }
    }

    fn say(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(words.to_owned()),
            None => self.output.note(words),
        }
    }
}

/// What is known of the time that went and will go.
fn times(percent: u8, audio_ms: u64, elapsed_ms: u64) -> String {
    let mut text = format!("{} gone", clock(elapsed_ms));
    if (1..100).contains(&percent) {
        let left = elapsed_ms.saturating_mul(u64::from(100 - percent)) / u64::from(percent);
        text.push_str(&format!(", about {} left", clock(left)));
    }
    if audio_ms > 0 {
        text.push_str(&format!(", {} of audio read", clock(audio_ms)));
    }
    text
}

/// A bar for so many bytes on their way.
pub(super) fn upload_bar(output: Output, bytes: u64) -> ProgressBar {
    if !output.moves() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    bar.set_style(style("sending    {bar:32} {percent:>3} %  {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// As the API spells it.
pub(super) const fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Decode => "decode",
        Stage::Speech => "speech",
        Stage::Transcribe => "transcribe",
        Stage::Redact => "redact",
        Stage::Seal => "seal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::Exit;

    #[test]
    fn the_time_left_follows_from_the_time_gone() {
        assert_eq!(times(25, 0, 10_000), "0:10.0 gone, about 0:30.0 left");
        assert_eq!(times(0, 5_000, 1_000), "0:01.0 gone, 0:05.0 of audio read");
        assert_eq!(times(100, 0, 1_000), "0:01.0 gone");
    }

    #[test]
    fn only_a_transcript_is_a_success() {
        let end = |state, failure| End { state, failure }.verdict().map_err(|failure| failure.exit());
        assert_eq!(end(CallState::Done, None), Ok(()));
        assert_eq!(end(CallState::Failed, Some(CallFailure::NotAudio)), Err(Exit::BadInput));
        assert_eq!(end(CallState::Cancelled, None), Err(Exit::Failed));
    }
}
