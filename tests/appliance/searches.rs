//! The searches of [`crate::nothing_in_clear`] find what is there: in each place that is searched, in each shape that is searched for.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use nix::unistd::User;
use tempfile::TempDir;

use crate::support::image::Disk;
use crate::support::journal::Journal;
use crate::support::needles::Needles;
use crate::support::plants;
use crate::support::process::{memory_holds, open_files_hold};
use crate::support::scan::files_of_ours_since;
use crate::support::swtpm::Swtpm;
use crate::support::wiretap::Wiretap;

/// A planted name and what finds it.
fn planted() -> (String, Needles) {
    let name = plants::name();
    let mut needles = Needles::default();
    needles.word(&name);
    (name, needles)
}

#[test]
fn every_shape_is_found_also_across_the_borders_of_pieces() {
    let folder = TempDir::new().unwrap();
    let (name, mut needles) = planted();
    let recording = plants::spoken(folder.path(), "The crocodile was hiding.", 1);
    needles.key("a key", &(100..132).collect::<Vec<u8>>());
    needles.recording("a recording", &recording.samples);
    needles.upload("a recording", &fs::read(&recording.file).unwrap());
    let search = needles.search();

    assert!(needles.patterns().len() > 30, "{}", needles.patterns().len());
    for (shape, bytes) in needles.patterns() {
        for before in [3, (4 << 20) - bytes.len() / 2] {
            let found = search.reader([&vec![0; before][..], bytes, &[0; 5]].concat().as_slice()).unwrap();
            assert!(found.contains(shape), "{shape} after {before} bytes");
        }
    }
    assert!(search.bytes(name.to_uppercase().as_bytes()).contains(&name));
    assert!(
        search
            .bytes(br#"xx "key": [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116"#)
            .contains("a key (numbers)")
    );
    let said_by_openssl =
        Command::new("openssl").args(["base64", "-A", "-in"]).arg(written(&folder, &format!("yy{name}yyy"))).output().unwrap();
    assert!(search.bytes(&said_by_openssl.stdout).contains(&format!("{name} (base64)")));
    assert!(search.bytes(&[7; 1000]).is_empty());
}

fn written(folder: &TempDir, content: &str) -> std::path::PathBuf {
    let file = folder.path().join("written");
    fs::write(&file, content).unwrap();
    file
}

#[test]
fn a_word_in_a_deleted_file_is_found_on_the_disk_and_behind_its_descriptor() {
    let disk = Disk::of_megabytes(16);
    let (name, needles) = planted();
    let path = disk.path().join("gone");
    let mut file = File::create(&path).unwrap();
    file.write_all(format!("{name:>5000}").as_bytes()).unwrap();
    disk.flush();
    fs::remove_file(&path).unwrap();

    let open = open_files_hold(std::process::id(), &needles.search());
    drop(file);
    disk.flush();

    assert!(open.iter().any(|(what, _)| *what == name), "{open:?}");
    assert!(needles.search().file(&disk.image()).contains(&name));
}

#[test]
fn a_word_in_a_process_is_found_in_its_memory() {
    let (name, needles) = planted();
    let mut holder = Command::new("sh").args(["-c", "read word; read end"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    writeln!(input, "{name}").unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);

    // It is there once the shell has read it.
    let found = std::iter::repeat_with(|| memory_holds(holder.id(), &needles.search()))
        .find(|found| !found.is_empty() || std::time::Instant::now() > until)
        .unwrap();

    drop(input);
    holder.wait().unwrap();
    assert!(found.iter().any(|(what, _)| *what == name), "{found:?}");
}

#[test]
fn a_word_in_the_journal_is_found_also_where_it_is_compressed() {
    let journal = Journal::start();
    let (name, needles) = planted();
    let launcher = journal.launcher();
    let line = format!("{name} {}", "and so on ".repeat(300));
    let mut sent = Command::new(&launcher[0]);
    let sent = sent
        .args(&launcher[1..])
        .args(["logger", "--socket=/run/systemd/journal/dev-log", "--socket-errors=on", "--size", "8KiB", &line])
        .output()
        .expect("logger is missing: apt-get install bsdutils");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);

    let found = std::iter::repeat_with(|| needles.search().bytes(&journal.exported()))
        .find(|found| !found.is_empty() || std::time::Instant::now() > until)
        .unwrap();

    assert!(found.contains(&name));
}

#[test]
fn a_word_on_the_tpms_bus_is_heard_in_both_directions() {
    let swtpm = Swtpm::start();
    let wiretap = Wiretap::before(&swtpm);
    let (name, needles) = planted();
    let mut connection = TcpStream::connect(("127.0.0.1", wiretap.port())).unwrap();
    // TPM2_GetRandom, 8 bytes.
    connection.write_all(&[0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8]).unwrap();
    let mut random = [0; 20];
    connection.read_exact(&mut random).unwrap();
    // One connection at a time is all that a TPM serves.
    drop(connection);
    let mut other = TcpStream::connect(("127.0.0.1", wiretap.port())).unwrap();
    let (one, two) = name.split_at(5);
    other.write_all(one.as_bytes()).unwrap();
    other.write_all(two.as_bytes()).unwrap();
    other.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = other.read_to_end(&mut Vec::new());

    let heard = wiretap.heard();

    assert!(needles.search().bytes(&heard).contains(&name));
    assert!(heard.windows(20).any(|window| window == random), "what the TPM answers is heard too");
}

#[test]
fn a_word_in_a_temporary_file_of_the_daemons_user_is_found() {
    let began = SystemTime::now();
    let (name, needles) = planted();
    let folder = TempDir::new().unwrap();
    let file = written(&folder, &format!("xx{name}"));
    chown(&file, Some(User::from_name("salama").unwrap().expect("run `make setup`").uid.as_raw()), None).unwrap();

    let found = files_of_ours_since(began);

    assert!(found.contains(&file));
    assert!(needles.search().file(&file).contains(&name));
}
