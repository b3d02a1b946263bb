//! `salama audit …`: the latest entries, from the journal of the machine that this runs on.
//! Trusts: journald's fields; the words of entries are cleaned all the same.
//! Touches: the journal, through libsystemd.
//! Next: standard output.

use std::collections::BTreeMap;

use systemd::journal::{Journal, JournalRecord, OpenOptions};

use super::args::TailArgs;
use super::failure::Failure;
use super::output::{Output, clean};
use crate::base::clock::Timestamp;

/// Whose entries these are.
const IDENTIFIERS: [&str; 3] = ["salamad", "salama-keeper", "salama-worker"];
/// The prefix of our own fields.
const PREFIX: &str = "SALAMA_";

/// Prints the latest entries, then new ones when asked to.
pub(super) fn tail(output: Output, args: TailArgs) -> Result<(), Failure> {
    let mut journal = open()?;
    journal.seek_tail().map_err(broken)?;
    let mut latest = Vec::new();
    while latest.len() < usize::try_from(args.lines).unwrap_or(usize::MAX) {
        let Some(entry) = previous(&mut journal)? else { break };
        latest.push(entry);
    }
    if latest.is_empty() {
        output.note("the journal has no entries of salamad; does it run on this machine, and may you read the system's journal?");
    }
    for entry in latest.iter().rev() {
        entry.print(output)?;
    }
    if !args.follow {
        return Ok(());
    }
    // Reading went backwards: go on behind what has been printed.
    if let Some(newest) = latest.first() {
        journal.seek_cursor(newest.cursor.as_str()).map_err(broken)?;
        journal.next().map_err(broken)?;
    } else {
        journal.seek_tail().map_err(broken)?;
        journal.previous().map_err(broken)?;
    }
    while let Some(record) = journal.await_next_entry(None).map_err(broken)? {
        Entry::read(&mut journal, &record)?.print(output)?;
    }
    Ok(())
}

fn open() -> Result<Journal, Failure> {
    let missing = || {
        Failure::NoJournal(
            "there is no journal on this machine: systemd-journald does not run. salamad then writes its audit entries to its standard error, \
             as JSON lines; look where you started it"
                .to_owned(),
        )
    };
    let mut journal = OpenOptions::default().system(true).local_only(true).open().map_err(broken)?;
    let has_files = journal.has_persistent_files().map_err(broken)? || journal.has_runtime_files().map_err(broken)?;
    if !has_files {
        return Err(missing());
    }
    for identifier in IDENTIFIERS {
        journal.match_add("SYSLOG_IDENTIFIER", identifier).map_err(broken)?;
    }
    Ok(journal)
}

fn broken(error: systemd::Error) -> Failure {
    Failure::NoJournal(format!("the journal cannot be read: {error}; members of the group systemd-journal may read it"))
}

fn previous(journal: &mut Journal) -> Result<Option<Entry>, Failure> {
    match journal.previous_entry().map_err(broken)? {
        Some(record) => Ok(Some(Entry::read(journal, &record)?)),
        None => Ok(None),
    }
}

/// One entry.
struct Entry {
    time: Timestamp,
    cursor: String,
    fields: BTreeMap<String, String>,
    message: String,
    loud: bool,
}

impl Entry {
    fn read(journal: &mut Journal, record: &JournalRecord) -> Result<Self, Failure> {
        let micros = journal.timestamp_usec().map_err(broken)?;
        let field = |name: &str| record.get(name).cloned().unwrap_or_default();
        let ours = record.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_lowercase(), clean(value))));
        Ok(Self {
            time: Timestamp::from_unix_millis(micros / 1000),
            cursor: journal.cursor().map_err(broken)?,
            fields: ours.collect(),
            message: clean(&field("MESSAGE")),
            // 4 is a warning (syslog.h).
            loud: field("PRIORITY").parse().is_ok_and(|priority: u8| priority <= 4),
        })
    }

    fn print(&self, output: Output) -> Result<(), Failure> {
        if output.json {
            let mut document = serde_json::json!({ "time": self.time.rfc3339(), "message": self.message });
            if let Some(document) = document.as_object_mut() {
                document.extend(self.fields.iter().map(|(name, value)| (name.clone(), value.clone().into())));
            }
            return output.json_line(&document);
        }
        output.text(&self.line())
    }

    fn line(&self) -> String {
        let event = self.fields.get("event").map_or("-", String::as_str);
        let mark = if self.loud { "!" } else { " " };
        format!("{}  {mark} {event:15}  {}", self.time.rfc3339(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_with_time_event_and_words() {
        let entry = Entry {
            time: Timestamp::from_unix_millis(1_700_000_000_123),
            cursor: String::new(),
            fields: BTreeMap::from([("event".to_owned(), "call_done".to_owned())]),
            message: "call 7 done".to_owned(),
            loud: true,
        };
        assert_eq!(entry.line(), "2023-11-14T22:13:20.123Z  ! call_done        call 7 done");
    }
}
