//! JSON and text that try to say two things at once, to go too deep, or to hide: refused by name, or read as they are seen.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: [`super::uploads`].

use http::Request;
use serde_json::json;

use crate::connection::fixture::{Appliance, Client, Reply};

const ASHA: &str = "counsellor/asha";

/// The beginning of metadata: a valid consent.
const CONSENT: &[u8] = br#"{"consent":{"basis":"caller","purposes":["transcription"]}"#;

/// Metadata with a valid consent and `more` after it.
fn metadata(more: &str) -> Vec<u8> {
    [CONSENT, b",", more.as_bytes(), b"}"].concat()
}

async fn upload(client: &mut Client, metadata: &[u8]) -> Reply {
    let head = |name: &str| format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes();
    let body = [&head("metadata"), metadata, b"\r\n", &head("audio"), b"RIFF\r\n--XyZ--\r\n"].concat();
    client.send(Request::post("/api/v1/calls").header("content-type", "multipart/form-data; boundary=XyZ"), body).await
}

async fn redact(client: &mut Client, body: Vec<u8>) -> Reply {
    client.send(Request::post("/api/v1/text/redact").header("content-type", "application/json"), body).await
}

fn assert_refused(reply: &Reply, expected: (u16, &str, &str)) {
    let (status, kind, named) = expected;
    let (detail, said) = (reply.json()["detail"].as_str().unwrap().to_owned(), reply.problem());
    assert_eq!(said, (status, kind.to_owned()), "{detail}");
    assert!(detail.contains(named), "{detail}");
}

#[tokio::test]
async fn metadata_that_says_something_twice_or_something_unknown_is_refused_by_its_key() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    for (sent, named) in [
        (metadata(r#""language":"sw","language":"en""#), "duplicate field `language`"),
        (metadata(r#""language":"sw","\u006canguage":"en""#), "duplicate field `language`"),
        (metadata(r#""channels":["caller"],"channels":["counsellor"]"#), "duplicate field `channels`"),
        (metadata(r#""consent":{"basis":"guardian","purposes":["transcription"]}"#), "duplicate field `consent`"),
        (br#"{"consent":{"basis":"caller","basis":"guardian","purposes":["transcription"]}}"#.to_vec(), "duplicate field `basis`"),
        (metadata(r#""call_id":"../x""#), "unknown field `call_id`"),
        (metadata(r#""samples":null"#), "unknown field `samples`"),
        (metadata(r#""samples":{"sample_rate":8000,"channels":1,"big_endian":false}"#), "unknown field `samples`"),
        (metadata("\"\u{202E}id\":1"), "unknown field `U+202Eid`"),
        (br#"{"consent":{"basis":"caller","purposes":["transcription"],"forced":true}}"#.to_vec(), "unknown field `forced`"),
    ] {
        assert_refused(&upload(&mut client, &sent).await, (422, "invalid-metadata", named));
    }
    assert!(appliance.desk.lock().calls.is_empty());
}

#[tokio::test]
async fn json_that_goes_deep_or_is_no_text_is_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let deep = |before: &str| [before.as_bytes(), &vec![b'['; 50_000]].concat();
    let unknown = [CONSENT, b",\"x\":", &deep("")].concat();
    assert_refused(&upload(&mut client, &deep("")).await, (422, "invalid-metadata", "expected an object"));
    assert_refused(&upload(&mut client, &deep(r#"{"consent":"#)).await, (422, "invalid-metadata", "expected an object"));
    assert_refused(&upload(&mut client, &unknown).await, (422, "invalid-metadata", "unknown field `x`"));
    assert_refused(&redact(&mut client, deep("")).await, (422, "invalid-body", "expected an object"));
    assert_refused(&redact(&mut client, deep(r#"{"text":"#)).await, (422, "invalid-body", "sequence"));
    for (string, named) in [
        (b"\xff".as_slice(), "not UTF-8 from its byte"),
        (b"\xed\xa0\x80", "not UTF-8 from its byte"),
        (b"\xc0\x80", "not UTF-8 from its byte"),
        (br"\ud800", "hex escape"),
        (b"\0", "control character"),
        (b"\n", "control character"),
    ] {
        let reference = [CONSENT, b",\"reference\":\"", string, b"\"}"].concat();
        assert_refused(&upload(&mut client, &reference).await, (400, "malformed-json", named));
        let text = [b"{\"text\":\"", string, b"\"}"].concat();
        assert_refused(&redact(&mut client, text).await, (400, "malformed-json", named));
    }
    assert!(appliance.desk.lock().calls.is_empty());
}

#[tokio::test]
async fn an_array_of_the_fields_is_not_taken_for_an_object() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let whole = br#"[{"basis":"caller","purposes":["transcription"]},"sw"]"#;
    let inner = br#"{"consent":["caller",["transcription"]]}"#;
    assert_refused(&upload(&mut client, whole).await, (422, "invalid-metadata", "expected an object"));
    assert_refused(&upload(&mut client, inner).await, (422, "invalid-metadata", "expected an object"));
    assert_refused(&redact(&mut client, br#"["Amina called"]"#.to_vec()).await, (422, "invalid-body", "expected an object"));
}

#[tokio::test]
async fn a_reference_holds_nothing_that_cannot_be_seen() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    for (hidden, named) in [
        (r"\u0000", "U+0000"),
        (r"\u001b", "U+001B"),
        (r"\n", "U+000A"),
        (r"\u202e", "U+202E"),
        ("\u{2066}", "U+2066"),
        ("\u{200b}", "U+200B"),
        ("\u{feff}", "U+FEFF"),
        (r"\udb40\udc41", "U+E0041"),
    ] {
        let reply = upload(&mut client, &metadata(&format!(r#""reference":"case {hidden}17""#))).await;
        assert_refused(&reply, (422, "invalid-metadata", named));
    }
    for seen in ["Kesi ya 17/2026", "قضية ١٧", "дело № 17"] {
        assert_eq!(upload(&mut client, &metadata(&format!(r#""reference":"{seen}""#))).await.status, 202, "{seen}");
    }
}

#[tokio::test]
async fn channels_name_one_or_two_roles_each_once() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let wrong = "must name one or two channels";
    for (channels, named) in [
        ("[]", wrong),
        (r#"["caller","caller"]"#, wrong),
        (r#"["caller","counsellor","caller"]"#, wrong),
        (r#"["caller","teacher"]"#, "unknown variant, expected `counsellor` or `caller`"),
        (r#""caller""#, "expected a sequence"),
    ] {
        let reply = upload(&mut client, &metadata(&format!(r#""channels":{channels}"#))).await;
        assert_refused(&reply, (422, "invalid-metadata", named));
    }
    assert!(appliance.desk.lock().calls.is_empty());
    for channels in [r#"["caller"]"#, r#"["caller","counsellor"]"#, r#"["counsellor","caller"]"#] {
        assert_eq!(upload(&mut client, &metadata(&format!(r#""channels":{channels}"#))).await.status, 202, "{channels}");
    }
}

#[tokio::test]
async fn a_text_is_given_on_in_the_order_in_which_it_is_read_and_control_characters_are_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    for (sent, given_on) in [
        ("number \u{202E}8765432170\u{202C} of", "number 8765432170 of"),
        ("\u{2067}Amina\u{2069} \u{202A}called\u{202C}", "[PERSON_1] called"),
        ("a\u{E0030}\u{E0037}\u{E0031}\u{E0032}b", "ab"),
        ("می\u{200C}خواهم با \u{200F}Amina\u{200F} حرف بزنم", "می\u{200C}خواهم با \u{200F}[PERSON_1]\u{200F} حرف بزنم"),
        ("اسمي أمينة\nوعمري ١٢", "اسمي أمينة\nوعمري ١٢"),
        ("Naitwa Amina,\t\r\nnina miaka 12", "Naitwa [PERSON_1],\t\r\nnina miaka 12"),
    ] {
        let reply = redact(&mut client, json!({ "text": sent }).to_string().into_bytes()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["text"]), (200, &given_on.into()), "{sent:?}");
    }
    for (sent, named) in [("Am\0ina", "U+0000 as its character 3"), ("\u{1b}[2J", "U+001B as its character 1"), ("x\u{9f}", "U+009F")] {
        let reply = redact(&mut client, json!({ "text": sent }).to_string().into_bytes()).await;
        assert_refused(&reply, (422, "invalid-body", named));
    }
    let nothing = redact(&mut client, json!({ "text": "\u{202E}\u{202C}" }).to_string().into_bytes()).await;
    assert_refused(&nothing, (422, "text-length", "1 to 10000"));
}
