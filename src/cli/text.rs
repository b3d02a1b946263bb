//! `salama text …`.
//! Trusts: nothing in the reply.
//! Touches: standard input; the appliance.
//! Next: standard output.

use std::io::Read as _;
use std::path::PathBuf;

use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, clean};
use super::transcript;
use crate::ipc::worker::TEXT_CHARS_MAX;
use crate::job::spec::RedactedText;

#[derive(Serialize)]
struct Question {
    text: String,
}

/// Masks the personal information in a text.
pub(super) async fn redact(client: &Client, output: Output, text: Option<String>) -> Result<(), Failure> {
    let text = text.map_or_else(from_standard_input, Ok)?;
    let redacted: RedactedText = client.post("/api/v1/text/redact", Some(&Question { text })).await?;
    let by_line = |text: &RedactedText| text.text.lines().map(clean).collect::<Vec<_>>().join("\n");
    output.either(&redacted, by_line)?;
    let language = redacted.language.as_ref().map(|language| format!("; language {}", transcript::language(language)));
    output.note(&format!("redacted {}{}", transcript::counts(&redacted.redacted), language.unwrap_or_default()));
    Ok(())
}

/// One byte more than can be accepted is enough to be refused for it.
fn from_standard_input() -> Result<String, Failure> {
    let limit = u64::try_from(4 * TEXT_CHARS_MAX + 4).unwrap_or(u64::MAX);
    let mut text = String::new();
    let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
    read.map_err(|cause| Failure::Read { path: PathBuf::from("standard input"), cause })?;
    // The line end that every text file and `echo` have at the end is none of the text.
    Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
}
