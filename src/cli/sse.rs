//! Server-sent events, without sockets: bytes in, events out (WHATWG HTML, 9.2.6).
//! Trusts: nothing; lines and events are capped.
//! Touches: nothing.
//! Next: [`super::follow`].

/// Longest line or event, bytes.
const LENGTH_MAX: usize = 64 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last id seen in the stream, to resume from.
    pub id: Option<String>,
    /// Its data lines, joined by line ends.
    pub data: String,
}

/// The stream is not one of events, or hostile.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {LENGTH_MAX} bytes")]
pub struct TooLong;

/// Takes pieces of the stream in any size.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    id: Option<String>,
    data: Option<String>,
}

impl Parser {
    /// The events that this piece completes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    events.extend(self.end_line()?);
                }
                _ => {
                    self.after_cr = false;
                    if self.line.len() >= LENGTH_MAX {
                        return Err(TooLong);
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<Event>, TooLong> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if line.is_empty() {
            return Ok(self.data.take().map(|data| Event { id: self.id.clone(), data }));
        }
        // A line that begins with a colon is a comment: the heartbeat.
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                let data = self.data.get_or_insert_default();
                if data.len() + value.len() >= LENGTH_MAX {
                    return Err(TooLong);
                }
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str =
        ": hello\n\nid: 1\nevent: state\ndata: {\"a\":1}\n\nid:2\r\ndata: one\r\ndata: two\r\n\r\nevent: none\n\ndata: é\r\rdata: cut";

    fn event(id: &str, data: &str) -> Event {
        Event { id: Some(id.to_owned()), data: data.to_owned() }
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_the_stream_is_cut(cuts in prop::collection::vec(1_usize..9, 1..80)) {
            let (mut parser, mut events, mut rest) = (Parser::default(), Vec::new(), STREAM.as_bytes());
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at(rest.len().min(*cut));
                events.extend(parser.push(piece).unwrap());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(events, [event("1", "{\"a\":1}"), event("2", "one\ntwo"), event("2", "é")]);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(Parser::default().push(&bytes).is_ok());
        }
    }

    #[test]
    fn endless_lines_and_events_are_refused() {
        assert_eq!(Parser::default().push(&[b'x'; LENGTH_MAX + 1]), Err(TooLong));
        assert_eq!(Parser::default().push(&b"data: 0123456789\n".repeat(LENGTH_MAX / 8)), Err(TooLong));
    }
}
