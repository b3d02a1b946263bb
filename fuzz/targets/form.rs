//! A form that is posted: `api::multipart`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `api::upload` takes its parts.

#[path = "../../src/api/multipart.rs"]
mod multipart;

use multipart::{FormError, Parser, Piece};

use super::Target;

/// Content-Type up to the first line feed, then the body.
pub const TARGET: Target = Target {
    name: "multipart",
    run,
    seeds,
    corpus: "",
    words: &[
        b"--XyZ",
        b"\r\n--XyZ",
        b"\r\n--XyZ--\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"; name=\"audio\"",
        b"; boundary=",
        b"Content-Disposition: form-data",
        b"Content-Type: ",
        b"Content-Transfer-Encoding: base64",
        b"\\\"",
        b"filename*=UTF-8''",
    ],
    memory: 256 << 10,
    longest: 8192,
    smoke: 8000,
};

/// Name, media type and bytes of a part.
type Part = (String, Option<String>, Vec<u8>);

/// Promise: however a body is cut into pieces, it gives the same parts or the same refusal, and no part holds bytes that were not sent.
fn run(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(content_type) = std::str::from_utf8(&data[..line]) else { return };
    let body = data.get(line + 1..).unwrap_or_default();
    let Ok(whole) = parts(content_type, body, body.len().max(1)) else { return };
    for cut in [1, 7, 64] {
        assert_eq!(parts(content_type, body, cut).unwrap(), whole, "in pieces of {cut}");
    }
    if let Ok(parts) = whole {
        let held: usize = parts.iter().map(|(name, _, bytes)| name.len() + bytes.len()).sum();
        assert!(held <= body.len(), "parts hold {held} bytes of {}", body.len());
    }
}

/// Outer error: no boundary.
fn parts(content_type: &str, body: &[u8], cut: usize) -> Result<Result<Vec<Part>, FormError>, FormError> {
    let mut parser = Parser::new(content_type)?;
    let mut parts: Vec<Part> = Vec::new();
    for piece in body.chunks(cut) {
        parser.feed(piece);
        loop {
            match parser.next() {
                Ok(Some(Piece::Part(head))) => parts.push((head.name, head.media_type, Vec::new())),
                Ok(Some(Piece::Data(bytes))) => {
                    assert!(!bytes.is_empty(), "a piece of data is empty");
                    parts.last_mut().expect("data belongs to a part").2.extend_from_slice(&bytes);
                }
                Ok(Some(Piece::PartEnd)) => {}
                Ok(Some(Piece::End) | None) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(parser.finish().map(|()| parts))
}

fn seeds() -> Vec<Vec<u8>> {
    let form = "multipart/form-data; boundary=XyZ\n--XyZ\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json\r\n\r\n\
         {\"consent\":{}}\r\n--XyZ\r\ncontent-disposition: form-data; filename=\"a;name=b\\\"\"; name=audio\r\n\r\nRIFF\r\n--Xy\r\r\n\r\n--XyZ--\r\n";
    let quoted = "multipart/form-data; charset=utf-8; boundary=\"a b\"\n--a b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n--a b--";
    vec![form.as_bytes().to_vec(), quoted.as_bytes().to_vec()]
}
