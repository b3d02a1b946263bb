//! multipart/form-data (RFC 7578) piece by piece, without sockets: bytes in, parts out, in bounded memory.
//! Trusts: nothing. Part heads are capped, no preamble is taken, data is never held back beyond one boundary.
//! Touches: nothing.
//! Next: [`super::upload`].
//!
//! Why our own: the crate that axum brings holds a preamble or part head of any length in memory.

use bytes::{Buf, Bytes, BytesMut};

/// Longest head of a part, bytes.
const HEAD_MAX: usize = 4 * 1024;
/// Longest boundary (RFC 2046, 5.1.1).
const BOUNDARY_MAX: usize = 70;

/// Takes pieces of a body and gives out its parts.
pub(super) struct Parser {
    /// CR LF `--` boundary.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    at: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    AfterDelimiter,
    Head,
    Data,
    End,
}

/// What comes next in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A part begins.
    Part(PartHead),
    /// Bytes of it; never empty.
    Data(Bytes),
    /// The part is complete.
    PartEnd,
    /// The last part was complete; nothing that follows counts.
    End,
}

/// The head of a part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHead {
    /// `name` of its Content-Disposition.
    pub(super) name: String,
    /// Its media type without parameters, lower case.
    pub(super) media_type: Option<String>,
    /// Its Content-Type as it was sent.
    pub(super) content_type: Option<String>,
}

/// Why a body is no form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// No usable boundary in the Content-Type.
    #[error("the Content-Type names no valid boundary")]
    Boundary,
    /// The body does not begin with the boundary.
    #[error("the body does not begin with its boundary")]
    Start,
    /// Something else than a line end or `--` after a boundary.
    #[error("a boundary is not followed by a line end")]
    Delimiter,
    /// The head is too long, or no head.
    #[error("the head of a part is malformed or longer than {HEAD_MAX} bytes")]
    Head,
    /// No `Content-Disposition: form-data` with a name.
    #[error("a part has no `Content-Disposition: form-data; name=\"…\"`")]
    Disposition,
    /// Encoded in base64 or the like.
    #[error("a part has a Content-Transfer-Encoding; send the bytes as they are")]
    Encoding,
    /// The body ended before its closing boundary.
    #[error("the body ends before its closing boundary")]
    Unfinished,
}

impl Parser {
    /// For a body with this Content-Type.
    ///
    /// # Errors
    /// `Boundary`.
    pub(super) fn new(content_type: &str) -> Result<Self, FormError> {
        let (_, parameters) = content_type.split_once(';').ok_or(FormError::Boundary)?;
        let boundary = parameter(parameters, "boundary").ok_or(FormError::Boundary)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
        if boundary.is_empty() || boundary.len() > BOUNDARY_MAX || !boundary.bytes().all(allowed) || boundary.ends_with(' ') {
            return Err(FormError::Boundary);
        }
        // The first boundary has no line before it; giving it one makes all alike.
        Ok(Self { delimiter: format!("\r\n--{boundary}").into_bytes(), buffer: BytesMut::from("\r\n"), at: Place::Start })
    }

    /// Adds a piece of the body.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.at != Place::End {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next piece; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FormError`]; the parser must not be used after one.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, FormError> {
        loop {
            match self.at {
                Place::Start => {
                    let known = self.buffer.len().min(self.delimiter.len());
                    if self.buffer.get(..known) != self.delimiter.get(..known) {
                        return Err(FormError::Start);
                    }
                    if known < self.delimiter.len() {
                        return Ok(None);
                    }
                    self.buffer.advance(known);
                    self.at = Place::AfterDelimiter;
                }
                Place::AfterDelimiter => match self.buffer.get(..2) {
                    None => return Ok(None),
                    Some(b"\r\n") => {
                        self.at = Place::Head;
                        self.buffer.advance(2);
                    }
                    Some(b"--") => {
                        self.at = Place::End;
                        self.buffer.clear();
                    }
                    Some(_) => return Err(FormError::Delimiter),
                },
                Place::Head => return self.head(),
                Place::Data => return Ok(self.data()),
                Place::End => return Ok(Some(Piece::End)),
            }
        }
    }

    /// Call when the body has ended.
    ///
    /// # Errors
    /// `Unfinished` when the closing boundary has not come.
    pub(super) fn finish(&self) -> Result<(), FormError> {
        if self.at == Place::End { Ok(()) } else { Err(FormError::Unfinished) }
    }

    fn head(&mut self) -> Result<Option<Piece>, FormError> {
        let window = self.buffer.get(..self.buffer.len().min(HEAD_MAX)).unwrap_or_default();
        let Some(end) = find(window, b"\r\n\r\n") else {
            return if self.buffer.len() >= HEAD_MAX { Err(FormError::Head) } else { Ok(None) };
        };
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        self.at = Place::Data;
        part_head(&head).map(|head| Some(Piece::Part(head)))
    }

    fn data(&mut self) -> Option<Piece> {
        let (certain, delimiter) = self.certain();
        if certain > 0 {
            return Some(Piece::Data(self.buffer.split_to(certain).freeze()));
        }
        if !delimiter {
            return None;
        }
        self.buffer.advance(self.delimiter.len());
        self.at = Place::AfterDelimiter;
        Some(Piece::PartEnd)
    }

    /// How many bytes at the front are surely data, and whether a whole delimiter follows them.
    fn certain(&self) -> (usize, bool) {
        let mut from = 0;
        while let Some(rest) = self.buffer.get(from..)
            && let Some(offset) = rest.iter().position(|byte| *byte == b'\r')
        {
            let at = from + offset;
            let candidate = self.buffer.get(at..).unwrap_or_default();
            let known = candidate.len().min(self.delimiter.len());
            if candidate.get(..known) == self.delimiter.get(..known) {
                return (at, known == self.delimiter.len());
            }
            from = at + 1;
        }
        (self.buffer.len(), false)
    }
}

fn part_head(head: &[u8]) -> Result<PartHead, FormError> {
    let text = std::str::from_utf8(head).map_err(|_| FormError::Head)?;
    let mut part = PartHead::default();
    for line in text.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or(FormError::Head)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" => {
                let (kind, parameters) = value.split_once(';').ok_or(FormError::Disposition)?;
                if !kind.trim().eq_ignore_ascii_case("form-data") {
                    return Err(FormError::Disposition);
                }
                part.name = parameter(parameters, "name").ok_or(FormError::Disposition)?;
            }
            "content-type" => {
                part.media_type = Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
                part.content_type = Some(value.to_owned());
            }
            "content-transfer-encoding" if !["binary", "8bit", "7bit"].contains(&value.to_ascii_lowercase().as_str()) => {
                return Err(FormError::Encoding);
            }
            _ => {}
        }
    }
    if part.name.is_empty() { Err(FormError::Disposition) } else { Ok(part) }
}

/// The value of one parameter of `; a=b; c="d"`, unquoted. A doubled parameter counts for nothing.
pub(super) fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    let mut found = None;
    while !text.trim().is_empty() {
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = parameter_value(rest)?;
        if name.trim().trim_start_matches(';').trim().eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
            return None;
        }
        text = rest;
    }
    found
}

/// One value and what follows it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end)?;
        return Some((value.trim().to_owned(), rest));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some((value, quoted.get(at + 1..)?)),
            _ => {
                value.push(character);
                escaped = false;
            }
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XyZ";

    /// Name and bytes of each part, however the body is cut into pieces.
    fn parts(body: &[u8], cut: usize) -> Result<Vec<(String, Vec<u8>)>, FormError> {
        let mut parser = Parser::new(TYPE)?;
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        for piece in body.chunks(cut) {
            parser.feed(piece);
            loop {
                match parser.next()? {
                    Some(Piece::Part(head)) => parts.push((head.name, Vec::new())),
                    Some(Piece::Data(bytes)) => parts.last_mut().unwrap().1.extend_from_slice(&bytes),
                    Some(Piece::PartEnd) => {}
                    Some(Piece::End) | None => break,
                }
            }
        }
        parser.finish().map(|()| parts)
    }

    fn form(metadata: &[u8], audio: &[u8]) -> Vec<u8> {
        let mut body = b"--XyZ\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json\r\n\r\n".to_vec();
        body.extend_from_slice(metadata);
        body.extend_from_slice(b"\r\n--XyZ\r\ncontent-disposition: form-data; filename=\"a;name=b\\\"\"; name=audio\r\n\r\n");
        body.extend_from_slice(audio);
        body.extend_from_slice(b"\r\n--XyZ--\r\n");
        body
    }

    proptest! {
        #[test]
        fn parts_come_out_as_they_went_in_however_the_body_is_cut(
            metadata in proptest::collection::vec(any::<u8>(), 0..40),
            audio in "([\r\n-]|--XyZ\n|\r\n--Xy|[a-z]){0,60}",
            cut in 1usize..200,
        ) {
            prop_assume!(find(&metadata, b"\r\n--XyZ").is_none() && !audio.contains("\r\n--XyZ"));
            let expected = vec![("metadata".to_owned(), metadata.clone()), ("audio".to_owned(), audio.clone().into_bytes())];
            prop_assert_eq!(parts(&form(&metadata, audio.as_bytes()), cut), Ok(expected));
        }

        #[test]
        fn no_bytes_make_the_parser_panic_or_hoard(body in proptest::collection::vec(any::<u8>(), 0..600), cut in 1usize..50) {
            let mut parser = Parser::new(TYPE).unwrap();
            parser.feed(b"--XyZ\r\nContent-Disposition: form-data; name=audio\r\n\r\n");
            for piece in body.chunks(cut) {
                parser.feed(piece);
                while let Ok(Some(piece)) = parser.next() && piece != Piece::End {}
                prop_assert!(parser.buffer.len() <= HEAD_MAX + cut);
            }
        }
    }

    #[test]
    fn an_empty_part_is_a_part() {
        assert_eq!(parts(&form(b"", b""), 7), Ok(vec![("metadata".to_owned(), vec![]), ("audio".to_owned(), vec![])]));
    }

    #[test]
    fn a_preamble_is_refused_rather_than_kept_in_memory() {
        assert_eq!(parts(b"This is a multi-part message.\r\n--XyZ--", 100), Err(FormError::Start));
    }

    #[test]
    fn an_endless_head_is_refused() {
        let body = [b"--XyZ\r\n".as_slice(), &vec![b'a'; HEAD_MAX + 1]].concat();
        assert_eq!(parts(&body, 1000), Err(FormError::Head));
    }

    #[test]
    fn a_body_without_its_closing_boundary_is_unfinished() {
        let whole = form(b"{}", b"RIFF");
        assert_eq!(parts(&whole[..whole.len() - 6], 9), Err(FormError::Unfinished));
    }

    #[test]
    fn parts_that_are_no_form_fields_are_refused() {
        for (head, error) in [
            ("Content-Type: audio/wav", FormError::Disposition),
            ("Content-Disposition: attachment; name=audio", FormError::Disposition),
            ("Content-Disposition: form-data; filename=x", FormError::Disposition),
            ("Content-Disposition: form-data; name=a; name=b", FormError::Disposition),
            ("no head at all", FormError::Head),
            ("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64", FormError::Encoding),
        ] {
            assert_eq!(parts(format!("--XyZ\r\n{head}\r\n\r\n\r\n--XyZ--").as_bytes(), 11), Err(error), "{head}");
        }
    }

    #[test]
    fn a_boundary_must_be_one() {
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a\rb\"",
            "multipart/form-data; boundary=a; boundary=b",
        ] {
            assert!(matches!(Parser::new(content_type), Err(FormError::Boundary)), "{content_type}");
        }
        assert!(Parser::new("multipart/form-data; charset=utf-8; boundary=\"a b\"").is_ok());
    }
}
