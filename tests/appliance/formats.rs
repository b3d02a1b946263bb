//! Each listed format gives the same words; silence gives none.

use tempfile::TempDir;

use crate::shared;
use crate::support::audio;
use crate::support::client::words;

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
