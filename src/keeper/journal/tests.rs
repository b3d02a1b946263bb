//! What the lines say, and that none is missing.
//! Trusts: nothing.
//! Touches: memory.
//! Next: nobody.

use super::*;
use crate::ipc::key_log::Verifier;
use crate::keeper::chain::tests::chain;

const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);
const DEK: KeyUse = KeyUse { kind: Use::Unwrap(UnwrapPurpose::Read), call: Some(CallId::from_bytes([0xab; 16])), denied: None, count: 7 };

const BEGIN: Duration = Duration::ZERO;

fn journal<W: Write>(out: W) -> Journal<W> {
    Journal::new(out, chain(1), Series::Daemon, Number { start: 1, before: None }, BEGIN)
}

fn verified(out: &[u8]) -> crate::ipc::key_log::Report {
    let mut verifier = Verifier::new(chain(1).public_key(), false);
    for (number, line) in (1..).zip(out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())) {
        verifier.line(number, line).unwrap();
    }
    verifier.finish().unwrap()
}

#[test]
fn a_line_says_kind_call_outcome_and_count_and_is_signed() {
    let mut out = Vec::new();
    journal(&mut out).record(DEK, NOW, BEGIN).unwrap();
    assert_eq!(verified(&out).lines, 2);
    let text = String::from_utf8(out).unwrap();
    let line = text.lines().nth(1).unwrap();
    assert!(line.contains(
        ",\"event\":\"key_use\",\"time\":\"2023-11-14T22:13:20Z\",\"kind\":\"unwrap_read\",\
         \"call\":\"abababababababababababababababab\",\"outcome\":\"done\",\"count\":7,\"sig\":\""
    ));
    assert!(text.starts_with("{\"chain\":\"01010101010101010101010101010101\",\"seq\":0,"));
}

#[test]
fn a_flood_of_refusals_is_summed_up_and_no_dek_is_opened_unrecorded() {
    let mut out = Vec::new();
    let mut journal = journal(&mut out);
    let refused = KeyUse { kind: Use::SignTls, call: None, denied: Some(KeeperDenial::NotSignable), count: 1 };
    for _ in 0..COMMON_LINES_PER_MINUTE + 50 {
        journal.record(refused, NOW, BEGIN).unwrap();
    }
    for _ in 0..1000 {
        journal.record(DEK, NOW, BEGIN).unwrap();
    }
    assert_eq!(verified(&out).lines, 1061);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("\"outcome\":\"done\"").count(), 1000);
    assert_eq!(text.matches("\"suppressed\":50").count(), 1);
}

/// Takes some bytes, then none for one write, then all.
struct Full {
    taken: Vec<u8>,
    room: usize,
    failed: bool,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = if self.failed { bytes.len() } else { bytes.len().min(self.room) };
        if taken == 0 {
            self.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room = self.room.saturating_sub(taken);
        self.taken.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_did_not_fit_is_refused_and_the_next_stands_on_its_own() {
    let mut journal = journal(Full { taken: Vec::new(), room: 700, failed: false });
    assert!(journal.record(DEK, NOW, BEGIN).is_err());
    journal.record(DEK, NOW, BEGIN).unwrap();
    let text = String::from_utf8(journal.out.taken).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(!lines[1].ends_with('}') && lines[2].contains("\"seq\":1,") && lines[2].ends_with("\"}"), "{text}");
}
