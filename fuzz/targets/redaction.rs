//! Redaction by rules, without the name model: what is promised of numbers in any text.
//! Trusts: nothing.
//! Touches: memory.
//! Next: `worker::text` adds the name model's findings.

use std::sync::OnceLock;

use super::Target;
use crate::worker::text::RedactedPlain;
use crate::worker::text::redactor::Redactor;

/// Text; bytes that are no UTF-8 become replacement characters.
pub const TARGET: Target = Target {
    name: "redaction",
    run,
    seeds,
    corpus: "",
    words: &[
        b"[PERSON_1]",
        b"[PHONE_9999]",
        b"[PHONE_",
        b"_1]",
        b"+254",
        b"0712 345 678",
        b"zero seven",
        b" double ",
        b" plus ",
        b"kumi na mbili",
        b"KES ",
        b" shillings",
        b"my id is ",
        b"born on 3/4/2011",
        b"@example.org",
        b"https://",
        b"10.0.0.1",
        b"4111 1111 1111 1111",
        b"\xe2\x80\x8b",
        b"\xe2\x80\xae",
        b"\xef\xbc\x90",
        b"\xcc\x81",
        b"\xd9\xa1",
        b"\xf0\x9d\x9f\x8f",
        b"\n",
        b"KE12 3456",
        b" miaka kumi ",
        b"years old",
        b"\xc5\xbf",
        b"\xe2\x84\xaa",
    ],
    memory: 16 << 20,
    longest: 1500,
    smoke: 1500,
};

/// Promise: every byte outside of what is masked stays, placeholders stand where entities say, a telephone number that is said on a line of
/// its own between any two texts is gone, and redacting again masks nothing that is a placeholder already.
fn run(data: &[u8]) {
    let around = String::from_utf8_lossy(data);
    let middle = (around.len() / 2..=around.len()).find(|at| around.is_char_boundary(*at)).unwrap_or_default();
    let (before, after) = around.split_at(middle);
    // A number that no rule has seen before, of this input's own.
    let number = format!(
        "07{:08}",
        data.iter().fold(u32::from(data.len() as u16), |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())) % 100_000_000
    );
    let text = format!("{before}\nCall me, the phone number is {number}.\n{after}");
    let redacted = redact(&text);
    stays_outside(&text, &redacted);
    let own = |text: &str| text.matches(&number).count();
    assert!(own(&redacted.text) == 0, "{number} is still in {:?}", redacted.text);
    let again = redact(&redacted.text);
    stays_outside(&redacted.text, &again);
}

fn redact(text: &str) -> RedactedPlain {
    static REDACTOR: OnceLock<Redactor> = OnceLock::new();
    REDACTOR.get_or_init(|| Redactor::new().unwrap()).text(text, &mut |_| Ok(Vec::new())).expect("rules do not fail")
}

/// The clear text with its entities replaced is the redacted text.
fn stays_outside(clear: &str, redacted: &RedactedPlain) {
    let (mut made, mut end) = (String::new(), 0);
    for entity in &redacted.entities {
        let (from, to) = (entity.start as usize, entity.end as usize);
        assert!(from < to && end <= from, "entities overlap, are empty or out of order");
        made.push_str(clear.get(end..from).expect("an entity begins at a character"));
        made.push_str(&format!("[{}_{}]", entity.kind.placeholder(), entity.number));
        end = to;
    }
    made.push_str(clear.get(end..).expect("an entity ends at a character"));
    assert_eq!(made, redacted.text);
}

fn seeds() -> Vec<Vec<u8>> {
    let lines = include_str!("../../src/worker/text/testdata/planted.txt").lines().map(|line| line.as_bytes().to_vec());
    let made = [
        "Amina from Kisumu, +254 712 345 678, is 12 years old. Naitwa Juma.",
        "my ID is 12345678, card 4111 1111 1111 1111, amina@example.org, https://example.org/?u=amina 10.0.0.1",
        "zero seven one two, triple three, oh five. namba yangu ni sifuri saba moja mbili",
        "KES 12,000 and [PHONE_1] [PERSON_2] on 3rd of May 2011, IBAN GB82 WEST 1234 5698 7654 32",
    ];
    lines.take(12).chain(made.map(|text| text.as_bytes().to_vec())).collect()
}
