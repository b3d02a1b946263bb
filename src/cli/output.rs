//! What reaches standard output and standard error, and how numbers are written there.
//! Trusts: nothing that came from the appliance: control characters could drive a terminal.
//! Touches: standard output and standard error.
//! Next: the person, or the program behind a pipe.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use serde::Serialize;

use super::failure::Failure;

/// The two streams, and whether machines read the first.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Standard output carries JSON only.
    pub json: bool,
}

impl Output {
    /// A line, or several, on standard output.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(closed)
    }

    /// Bytes as they are, on standard output.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(closed)
    }

    /// One indented JSON document.
    pub fn document<T: Serialize>(self, document: &T) -> Result<(), Failure> {
        self.text(&serde_json::to_string_pretty(document).map_err(|error| Failure::Reply(error.to_string()))?)
    }

    /// One JSON document in one line.
    pub fn json_line<T: Serialize>(self, document: &T) -> Result<(), Failure> {
        self.text(&serde_json::to_string(document).map_err(|error| Failure::Reply(error.to_string()))?)
    }

    /// The document with `--json`, the words without.
    pub fn either<T: Serialize>(self, document: &T, words: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json { self.document(document) } else { self.text(&words(document)) }
    }

    /// A line on standard error; not said to machines.
    pub fn note(self, words: &str) {
        if !self.json {
            warn(words);
        }
    }

    /// Bars may move: a person watches standard error.
    pub fn moves(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }
}

/// A line on standard error. Nothing can be done when that is closed.
pub fn warn(words: &str) {
    _ = writeln!(io::stderr().lock(), "{words}");
}

fn closed(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe { Failure::OutputClosed } else { Failure::Output(error) }
}

/// Without the characters that would move a cursor, change colours or reverse the direction of writing.
pub fn clean(text: &str) -> String {
    let hostile = |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if hostile(c) { '\u{fffd}' } else { c }).collect()
}

/// `1:23.4`, with hours `1:02:03.4`; tenths are cut, not rounded, so that no time is later than it was.
pub fn clock(ms: u64) -> String {
    let (hours, minutes, seconds, tenths) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms / 100 % 10);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}.{tenths}") } else { format!("{minutes}:{seconds:02}.{tenths}") }
}

/// `3.2 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            return format!("{}.{} {name}", bytes / unit, bytes % unit / (unit / 10));
        }
    }
    format!("{bytes} B")
}

/// `0.17`: the first is this share of the second; nothing when there is no second.
pub fn ratio(part: u64, whole: u64) -> Option<String> {
    let hundredths = part.saturating_mul(100).saturating_add(whole / 2).checked_div(whole)?;
    Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
}

/// Rows of cells in aligned columns, two spaces apart; the last column is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Words wrapped to `width` characters; lines after the first begin with `indent` spaces.
pub fn wrap(text: &str, indent: usize, width: usize) -> String {
    let (mut wrapped, mut column) = (String::new(), indent);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_on_a_clock() {
        let written = [0, 999, 1250, 83_499, 599_999, 3_723_400].map(clock);
        assert_eq!(written, ["0:00.0", "0:00.9", "0:01.2", "1:23.4", "9:59.9", "1:02:03.4"]);
    }

    #[test]
    fn sizes_carry_their_unit() {
        assert_eq!([999, 1000, 3_250_000, 500_000_000].map(size), ["999 B", "1.0 kB", "3.2 MB", "500.0 MB"]);
    }

    #[test]
    fn ratios_are_rounded_to_hundredths() {
        assert_eq!([ratio(1, 6), ratio(5, 2), ratio(1, 0)], [Some("0.17".to_owned()), Some("2.50".to_owned()), None]);
    }

    #[test]
    fn terminals_are_not_driven_by_what_was_said_in_a_call() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}c\nd"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = [vec!["é".to_owned(), "x".to_owned()], vec!["abc".to_owned(), "y".to_owned()]];
        assert_eq!(table(&rows), "é    x\nabc  y\n");
    }

    #[test]
    fn long_lines_are_wrapped_under_their_beginning() {
        assert_eq!(wrap("one two three", 4, 12), "one two\n    three");
    }
}
