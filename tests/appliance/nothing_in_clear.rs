//! Planted words and data-encryption keys are nowhere after a run; and the search does find them where they are.

use std::fs;

use crate::support::appliance::{Appliance, Settings};
use crate::support::audio;
use crate::support::journal::Journal;
use crate::support::scan::{contains, files_below, files_with};
use crate::way_of_a_call::PLANTED;

#[test]
fn planted_words_are_neither_on_disk_nor_in_the_journal_nor_in_the_log() {
    let journal = Journal::start();
    let mut appliance = Appliance::start_with(&Settings { launcher: journal.launcher(), ..Settings::default() });
    let client = appliance.client("counsellor", "clear");
    client.transcribed(&audio::sample_call());
    let cancelled = client.accepted_call(&audio::sample_call());
    client.request("POST", &format!("/api/v1/calls/{cancelled}/cancel"), &[]);
    client.post_json("/api/v1/text/redact", &serde_json::json!({"text": "Amina Hassan of Nairobi, 0712 345 678"}));
    assert!(appliance.stop().success(), "{}", appliance.log());

    let mut words = PLANTED.to_vec();
    // Shorter words would be met by chance in megabytes of ciphertext.
    words.extend(["0712345678", "0712 345 678", "with a belt", "WAVEfmt "]);
    assert_eq!(files_with(&appliance.state(), &words), []);
    assert_eq!(files_with(&appliance.keys(), &words), []);
    assert_eq!(files_with(&journal.files(), PLANTED), []);
    assert!(!journal.entries("salamad").is_empty(), "the daemon wrote nothing to the journal");
    let log = appliance.log();
    assert!(PLANTED.iter().all(|word| !log.contains(word)), "{log}");
}

#[test]
fn the_search_finds_a_word_that_is_there() {
    let folder = tempfile::TempDir::new().unwrap();
    fs::create_dir(folder.path().join("deep")).unwrap();
    fs::write(folder.path().join("deep/file"), b"\0\0xxamina hassan").unwrap();
    assert_eq!(files_with(folder.path(), PLANTED).len(), 2);
}

#[test]
fn no_data_encryption_key_is_on_disk_or_in_the_journal() {
    let journal = Journal::start();
    let mut appliance = Appliance::start_with(&Settings { launcher: journal.launcher(), ..Settings::default() });
    let client = appliance.client("counsellor", "keys");
    let (id, _) = client.transcribed(&audio::librivox());
    assert!(appliance.stop().success(), "{}", appliance.log());

    let keys = crate::support::keys::opened(&appliance, &id);

    let mut files = files_below(&appliance.state());
    files.extend(files_below(&appliance.keys()));
    files.extend(files_below(&journal.files()));
    files.push(appliance.path("daemon.log"));
    for file in files {
        let bytes = fs::read(&file).unwrap();
        for (name, key) in &keys {
            let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!contains(&bytes, key) && !contains(&bytes, hex.as_bytes()), "{name} is in {}", file.display());
        }
    }
}
