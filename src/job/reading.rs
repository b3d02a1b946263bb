//! What may be shown of calls: pages, one call, its transcript, its export, its events.
//! Trusts: the scope that the permit gave.
//! Touches: the store; the keeper for content.
//! Next: `api` renders it.

use tokio::sync::mpsc;

use super::calls::CallsError;
use super::desk::{Desk, DeskError};
use super::events::of_state;
use super::header::{Header, StoredMetadata, StoredTranscript};
use super::spec::{CallEvent, CallExport, CallMetadata, CallPage, CallState, CallView, PAGE_MAX, Scope, Transcript};
use crate::audit::event::Reading;
use crate::audit::{self, Event};
use crate::base::ids::CallId;
use crate::ipc::keeper::UnwrapPurpose;
use crate::record::envelope::Envelope;
use crate::record::schema::{Slot, Table};

/// The schema of the export document.
const EXPORT_SCHEMA: &str = "salama.call-export/1";

impl Desk {
    pub(super) fn view(&self, header: &Header) -> CallView {
        header.view(self.hub.at(header.call))
    }

    /// A page of calls, newest first.
    pub(super) fn page(&self, scope: &Scope, cursor: Option<&str>, limit: u16) -> Result<CallPage, DeskError> {
        let limit = usize::from(limit.clamp(1, PAGE_MAX));
        let (table, prefix) = match scope {
            Scope::OwnedBy(owner) => (Table::ByOwner, self.index.owner(owner).as_bytes().to_vec()),
            Scope::All => (Table::ByJob, Vec::new()),
        };
        let listing = [table.name().as_bytes(), &prefix].concat();
        let before = match cursor {
            Some(cursor) => self.index.read_cursor(&listing, cursor).ok_or(DeskError::Refused(CallsError::BadCursor))?,
            None => u64::MAX,
        };
        let (headers, more): (Vec<Header>, bool) = self.store.view(|snapshot| {
            let entries = snapshot.newest(table, &prefix, before, limit + 1)?;
            let mut headers = Vec::with_capacity(limit);
            for (slot, sealed) in entries.iter().take(limit) {
                let call: CallId = self.index.envelope().open_value(slot, sealed)?;
                let slot = Slot::of_call(Table::Header, call);
                let sealed = snapshot.get(&slot)?.ok_or(DeskError::NotFound)?;
                headers.push(self.index.envelope().open_value(&slot, &sealed)?);
            }
            Ok::<_, DeskError>((headers, entries.len() > limit))
        })?;
        let last = headers.last().map(|header| header.job).filter(|_| more);
        let next = last.map(|job| self.index.cursor(&listing, job));
        Ok(CallPage { calls: headers.iter().map(|header| self.view(header)).collect(), next })
    }

    /// The redacted transcript of a finished call.
    pub(super) fn transcript(&self, scope: &Scope, call: CallId) -> Result<Transcript, DeskError> {
        let header = self.header(scope, call)?;
        if header.state != CallState::Done {
            return Err(DeskError::Refused(CallsError::NoTranscript(header.state)));
        }
        let envelope = self.open_key(call, UnwrapPurpose::Read)?;
        let metadata = self.stored_metadata(call, &envelope)?;
        let transcript = self.stored_transcript(&header, &metadata, &envelope)?.ok_or(DeskError::NotFound)?;
        audit::record(&Event::CallRead { call, what: Reading::Transcript });
        Ok(transcript)
    }

    fn stored_metadata(&self, call: CallId, envelope: &Envelope) -> Result<CallMetadata, DeskError> {
        let slot = Slot::of_call(Table::Metadata, call);
        let sealed = self.store.get(&slot)?.ok_or(DeskError::NotFound)?;
        let stored: StoredMetadata = envelope.open_value(&slot, &sealed)?;
        Ok(stored.metadata()?)
    }

    /// The transcript with its channels' roles, as far as the recording has the channels that the uploader spoke of.
    fn stored_transcript(&self, header: &Header, metadata: &CallMetadata, envelope: &Envelope) -> Result<Option<Transcript>, DeskError> {
        let call = header.call;
        let slot = Slot::of_call(Table::Redacted, call);
        let Some(sealed) = self.store.get(&slot)? else { return Ok(None) };
        let stored: StoredTranscript = envelope.open_value(&slot, &sealed)?;
        let StoredTranscript { utterances, redacted, language, audio_ms, speech_ms, stages, wall_ms, models } = stored;
        let there = header.audio.as_ref().map(|audio| usize::from(audio.channels));
        let channels = metadata.channels.clone().filter(|told| Some(told.len()) == there);
        let channels_mismatch = channels != metadata.channels;
        Ok(Some(Transcript {
            call,
            channels,
            channels_mismatch,
            utterances,
            redacted,
            language,
            audio_ms,
            speech_ms,
            stages,
            wall_ms,
            models,
        }))
    }

    /// Everything that is given out of a call.
    pub(super) fn export(&self, scope: &Scope, call: CallId) -> Result<CallExport, DeskError> {
        let header = self.header(scope, call)?;
        let envelope = self.open_key(call, UnwrapPurpose::Read)?;
        // What the Content-Type declared is no part of what the uploader said, and shows in the call's `audio`.
        let metadata = CallMetadata { samples: None, ..self.stored_metadata(call, &envelope)? };
        let export = CallExport {
            schema: EXPORT_SCHEMA.into(),
            exported_at: self.clock.now().rfc3339(),
            call: self.view(&header),
            transcript: self.stored_transcript(&header, &metadata, &envelope)?,
            metadata,
        };
        audit::record(&Event::CallRead { call, what: Reading::Export });
        Ok(export)
    }

    /// Events after number `after`, then live ones.
    pub(super) fn watch(&self, scope: &Scope, call: CallId, after: u64) -> Result<mpsc::Receiver<CallEvent>, DeskError> {
        loop {
            let header = self.header(scope, call)?;
            if header.state.is_final() {
                return Ok(ended(&header, after));
            }
            // The stream closes after the final commit: when it is gone, the header is final or erased by now.
            if let Some(receiver) = self.hub.watch(call, after) {
                return Ok(receiver);
            }
        }
    }
}

/// The stream of a call that has ended: its final state, if that was not seen yet.
fn ended(header: &Header, after: u64) -> mpsc::Receiver<CallEvent> {
    let (sender, receiver) = mpsc::channel(1);
    if header.event > after {
        // One event fits.
        let _ = sender.try_send(of_state(header));
    }
    receiver
}
