//! What an uploader says of a call: JSON into `job::spec`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `job` seals it.

use salama::job::spec::{CallMetadata, ConsentPurpose, METADATA_TEXT_MAX};

use super::Target;

/// JSON.
pub const TARGET: Target = Target {
    name: "metadata",
    run,
    seeds,
    corpus: "",
    words: &[
        b"\"consent\":",
        b"\"basis\":",
        b"\"purposes\":[",
        b"\"transcription\"",
        b"\"language\":\"sw\"",
        b"\"reference\":\"",
        b"\"recorded_at\":\"",
        b"\"given_at\":\"",
        b"null",
        b"[[[[[[[[",
        b"\\u0000",
        b"\\ud800",
        b"\xe2\x80\xae",
        b"\xff\xfe",
        b"1e999",
        b"{}",
        b"2026-11-22T08:30:00Z",
    ],
    memory: 256 << 10,
    longest: 4096,
    smoke: 10_000,
};

/// Promise: what is accepted has consent to transcription, texts within their bounds without control characters, and is read back the
/// same from what we would write of it.
fn run(data: &[u8]) {
    let Ok(metadata) = serde_json::from_slice::<CallMetadata>(data) else { return };
    if metadata.check().is_err() {
        return;
    }
    assert!(metadata.consent.purposes.contains(&ConsentPurpose::Transcription));
    if let Some(reference) = &metadata.reference {
        assert!(reference.chars().count() <= METADATA_TEXT_MAX && !reference.chars().any(char::is_control), "{reference:?}");
    }
    let written = serde_json::to_vec(&metadata).unwrap();
    let again: CallMetadata = serde_json::from_slice(&written).expect("our own JSON is read");
    assert_eq!(again, metadata);
    again.check().expect("and accepted");
}

fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"consent":{"basis":"caller","purposes":["transcription"]}}"#,
        r#"{"consent":{"basis":"guardian","purposes":["transcription","quality_review","research"],"given_at":"2026-11-22T08:30:00Z"},
            "language":"sw","recorded_at":"2026-11-22T08:30:00.5+03:00","reference":"call é \u4e2d 17"}"#,
        r#"{"consent":{"basis":"legal_duty","purposes":[]},"language":null,"reference":"\u0007"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
