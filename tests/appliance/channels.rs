//! Who speaks on which channel: from the metadata into every form of the transcript.

use tempfile::TempDir;

use crate::shared;
use crate::support::audio;

const ROLES: &str = r#"{"consent":{"basis":"caller","purposes":["transcription"]},"channels":["counsellor","caller"]}"#;

#[test]
fn roles_of_channels_are_shown_where_the_recording_has_them_and_a_mismatch_is_said() {
    let client = shared().client("counsellor", "channels");
    let folder = TempDir::new().unwrap();
    let both = folder.path().join("both.wav");
    // The second channel says the same two seconds later.
    let mix = "[0]aformat=channel_layouts=mono,atrim=0:5,asplit[now][copy];[copy]adelay=2000[late];[now][late]join=inputs=2:channel_layout=stereo";
    audio::converted(&audio::librivox(), &both, &["-filter_complex", mix, "-ar", "8000"]);
    let one = folder.path().join("one.wav");
    audio::silence(&one, 2);
    let transcript = |recording: &std::path::Path, format: &str| {
        let reply = client.post_call(recording, ROLES, &[]);
        assert_eq!(reply.status, 202, "{}", reply.text());
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(client.finished(&id)["state"], "done");
        (client.get(&format!("/api/v1/calls/{id}/transcript?format={format}")), id)
    };

    let (vtt, id) = transcript(&both, "vtt");
    assert!(vtt.text().contains("<v Counsellor>") && vtt.text().contains("<v Caller>"), "{}", vtt.text());
    let text = client.get(&format!("/api/v1/calls/{id}/transcript?format=text")).text();
    assert!(text.contains("] Counsellor: ") && text.contains("] Caller: "), "{text}");
    let export = client.get(&format!("/api/v1/calls/{id}/export")).json();
    let roles = serde_json::json!(["counsellor", "caller"]);
    assert_eq!((&export["transcript"]["channels"], &export["metadata"]["channels"]), (&roles, &roles));

    let (mono, _) = transcript(&one, "json");
    assert_eq!((&mono.json()["channels"], &mono.json()["channels_mismatch"]), (&serde_json::Value::Null, &true.into()), "{}", mono.text());
}
