//! Each listed format gives the same words; silence gives none.

use serde_json::Value;
use tempfile::TempDir;

use crate::shared;
use crate::support::audio;
use crate::support::client::{CONSENT, words};

/// File ending and ffmpeg options of every format that the README lists.
const FORMATS: &[(&str, &[&str])] = &[
    ("pcm8.wav", &["-c:a", "pcm_u8", "-ar", "16000"]),
    ("pcm16.wav", &["-c:a", "pcm_s16le", "-ar", "8000"]),
    ("pcm24.wav", &["-c:a", "pcm_s24le", "-ar", "48000"]),
    ("pcm32.wav", &["-c:a", "pcm_s32le", "-ar", "22050"]),
    ("float.wav", &["-c:a", "pcm_f32le", "-ar", "44100"]),
    ("mulaw.wav", &["-c:a", "pcm_mulaw", "-ar", "8000"]),
    ("alaw.wav", &["-c:a", "pcm_alaw", "-ar", "8000"]),
    ("gsm.gsm", &["-c:a", "libgsm", "-ar", "8000"]),
    ("gsm.wav", &["-c:a", "libgsm_ms", "-ar", "8000"]),
    ("mp3.wav", &["-c:a", "libmp3lame", "-ar", "16000"]),
    ("mulaw.au", &["-c:a", "pcm_mulaw", "-ar", "8000"]),
    ("stereo.mp3", &["-c:a", "libmp3lame", "-ar", "44100", "-ac", "2"]),
    ("mono.flac", &["-c:a", "flac"]),
    ("aac.m4a", &["-c:a", "aac", "-ar", "32000"]),
    ("alac.m4a", &["-c:a", "alac", "-ar", "44100"]),
    ("opus.ogg", &["-c:a", "libopus", "-b:a", "24k"]),
    ("opus.webm", &["-c:a", "libopus", "-b:a", "24k"]),
    ("vorbis.ogg", &["-c:a", "libvorbis", "-ar", "24000"]),
];

#[test]
fn every_listed_format_is_transcribed_whatever_the_file_is_called() {
    let client = shared().client("recorder", "formats");
    let reader = shared().client("supervisor", "formats");
    let folder = TempDir::new().unwrap();
    let mut faults = Vec::new();
    let sent: Vec<(&str, String)> = FORMATS
        .iter()
        .map(|(name, options)| {
            let made = folder.path().join(name);
            audio::converted(&audio::librivox(), &made, options);
            let unnamed = folder.path().join(format!("{}.bin", name.replace('.', "-")));
            std::fs::rename(&made, &unnamed).unwrap();
            (*name, client.accepted_call(&unnamed))
        })
        .collect();

    for (name, id) in sent {
        let call = client.finished(&id);
        let transcript = reader.get(&format!("/api/v1/calls/{id}/transcript?format=json"));
        if call["state"] != "done" || !words(&transcript.json()).to_lowercase().contains("leisure") {
            faults.push(format!("{name}: {call} {}", transcript.text()));
        }
    }

    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Content type, what the call then says of its recording, and how ffmpeg makes it.
const WITHOUT_HEADER: &[(&str, &str, &[&str])] = &[
    ("audio/x-sln", "raw/pcm_s16le 8000 1", &["-f", "s16le", "-ar", "8000", "-ac", "1"]),
    ("audio/x-sln; rate=16000", "raw/pcm_s16le 16000 1", &["-f", "s16le", "-ar", "16000", "-ac", "1"]),
    ("audio/L16; rate=44100; channels=2", "raw/pcm_s16be 44100 2", &["-f", "s16be", "-ar", "44100", "-ac", "2"]),
];

#[test]
fn samples_without_a_header_are_transcribed_as_declared_and_never_guessed() {
    let client = shared().client("recorder", "samples");
    let reader = shared().client("supervisor", "samples");
    let document = reader.get("/api/v1/openapi.json").json();
    let folder = TempDir::new().unwrap();
    let mut sent = Vec::new();
    for (number, (declared, told, options)) in WITHOUT_HEADER.iter().enumerate() {
        let file = folder.path().join(format!("{number}.bin"));
        audio::converted(&audio::librivox(), &file, options);
        let (kind, metadata) = (format!("Content-Type: {declared}"), format!("Salama-Metadata: {CONSENT}"));
        let body = format!("@{}", file.display());
        let plain = client.request("POST", "/api/v1/calls", &["--header", &kind, "--header", &metadata, "--data-binary", &body]);
        let (metadata, part) = (format!("metadata={CONSENT};type=application/json"), format!("audio={body};type={declared}"));
        let form = client.request("POST", "/api/v1/calls", &["--form", &metadata, "--form", &part]);
        sent.extend([plain, form].map(|reply| (*declared, Some(*told), reply)));
        sent.push((*declared, None, client.post_call(&file, CONSENT, &[])));
    }

    for (declared, told, reply) in sent {
        assert_eq!(reply.status, 202, "{declared}: {}", reply.text());
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        let call = client.finished(&id);
        let Some(told) = told else {
            assert_eq!((&call["state"], &call["failure"]), (&"failed".into(), &"not_audio".into()), "undeclared: {call}");
            continue;
        };
        let audio = &call["audio"];
        assert_eq!(format!("{} {} {}", audio["format"].as_str().unwrap(), audio["sample_rate"], audio["channels"]), told, "{call}");
        let export = reader.get(&format!("/api/v1/calls/{id}/export?format=json")).json();
        assert!(words(&export["transcript"]).to_lowercase().contains("leisure"), "{declared}: {call} {export}");
        documented(&export, &document["components"]["schemas"]["CallExport"], &document)
            .unwrap_or_else(|fault| panic!("{fault}: {export}"));
    }
}

/// Whether the API's document knows every field of `value`, and `value` has every field that it requires.
fn documented(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        return documented(value, document.pointer(name.trim_start_matches('#')).expect("what is named is there"), document);
    }
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        return choices.iter().map(|choice| documented(value, choice, document)).reduce(Result::or).unwrap();
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = schema["type"].as_array().into_iter().flatten().chain([&schema["type"]]).filter_map(Value::as_str).collect();
    if !(kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number")) {
        return Err(format!("{value} is not one of {kinds:?}"));
    }
    value.as_array().into_iter().flatten().try_for_each(|item| documented(item, &schema["items"], document))?;
    let Some(fields) = value.as_object() else { return Ok(()) };
    let missing = schema["required"].as_array().into_iter().flatten().find(|name| !fields.contains_key(name.as_str().unwrap()));
    missing.map_or(Ok(()), |name| Err(format!("{name} is missing")))?;
    fields.iter().try_for_each(|(name, field)| match schema["properties"].get(name) {
        Some(schema) => documented(field, schema, document).map_err(|fault| format!("{name}: {fault}")),
        None => Err(format!("{name} is in no document")),
    })
}

#[test]
fn silence_and_noise_give_no_text() {
    let client = shared().client("counsellor", "silence");
    let folder = TempDir::new().unwrap();
    let (silence, noise) = (folder.path().join("silence.wav"), folder.path().join("noise.wav"));
    audio::silence(&silence, 20);
    audio::ffmpeg(&["-f", "lavfi", "-i", "anoisesrc=r=8000:d=20:a=0.1", noise.to_str().unwrap()]);

    for recording in [silence, noise] {
        let (_, transcript) = client.transcribed(&recording);
        assert_eq!(transcript["utterances"], serde_json::json!([]));
    }
}
