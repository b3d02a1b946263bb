//! What confined processes must still be able to do: each table is exercised by the libraries that it was written for.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use redb::{Database, ReadableDatabase, TableDefinition};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use salama::ipc::channel::Channel;
use salama::sandbox::process::Grant;
use salama::sys::pidfd::Ended;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::{grants, playground};
use crate::roles::{confined, start};
use crate::runner::Test;

pub const TESTS: &[Test] = &[
    ("the_core_serves_and_stores_confined", the_core_serves_and_stores_confined),
    ("the_keeper_signs_confined", the_keeper_signs_confined),
];

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("calls");

/// The role: a small core. Listens, stores, notifies, waits for signals, makes channels; all under the core's policy.
pub fn core(directory: &Path) -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let journal = UnixDatagram::unbound().unwrap();
    let notify = UnixDatagram::unbound().unwrap();
    notify.connect(directory.join("notify")).unwrap();
    let mut granted = grants(directory);
    granted.push(Grant::Socket(directory.join("journal")));
    // Opened before, so `harden` must be told to keep it, as the real core does with what systemd hands it.
    let (_confined, channel) = confined_with(&granted);
    channel.send(&listener.local_addr().unwrap().port()).unwrap();

    store(&directory.join("state"));
    files(&directory.join("state"));
    notify.send(b"READY=1").unwrap();
    journal.send_to(b"MESSAGE=x\n", directory.join("journal")).unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(listener));
    drop(runtime);
    channel.send(&true).unwrap();
    ExitCode::SUCCESS
}

fn confined_with(grants: &[Grant]) -> (salama::sandbox::process::Confined, Channel) {
    let channel = Channel::from_fd(salama::sys::descriptors::take_inherited(salama::ipc::CHANNEL_FD).unwrap());
    let unprivileged = salama::sandbox::process::harden(&(3..64).collect::<Vec<_>>()).unwrap().drop_privileges(Some("65534")).unwrap();
    (unprivileged.confine(&salama::sandbox::policy::core::POLICY, grants).unwrap(), channel)
}

fn store(state: &Path) {
    let path = state.join("store.redb");
    for round in 0..2_u64 {
        let database = Database::create(&path).unwrap();
        let mut write = database.begin_write().unwrap();
        write.set_quick_repair(true);
        write.open_table(TABLE).unwrap().insert(round, [7; 4096].as_slice()).unwrap();
        write.commit().unwrap();
        let read = database.begin_read().unwrap();
        assert_eq!(read.open_table(TABLE).unwrap().get(round).unwrap().unwrap().value().len(), 4096);
    }
}

fn files(state: &Path) {
    fs::create_dir_all(state.join("segments/call")).unwrap();
    let temporary = state.join("segments/call/0.tmp");
    let mut file = File::create(&temporary).unwrap();
    file.write_all(&[1; 100_000]).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    file.set_len(100_000).unwrap();
    file.sync_all().unwrap();
    fs::rename(&temporary, state.join("segments/call/0")).unwrap();
    File::open(state.join("segments/call")).unwrap().sync_all().unwrap();
    assert_eq!(fs::metadata(state.join("segments/call/0")).unwrap().len(), 100_000);
    assert_eq!(fs::read_dir(state.join("segments")).unwrap().count(), 1);
    assert!(statvfs(state).unwrap().blocks_available() > 0);
    let mut copy = File::create(state.join("segments/copy")).unwrap();
    assert_eq!(std::io::copy(&mut File::open(state.join("segments/call/0")).unwrap(), &mut copy).unwrap(), 100_000);
    assert!(fs::canonicalize(state).is_err());
    fs::remove_dir_all(state.join("segments")).unwrap();
}

async fn serve(listener: TcpListener) {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.set_nodelay(true).unwrap();
    let mut question = [0; 5];
    peer.read_exact(&mut question).await.unwrap();
    // A blocking thread that owns a new channel, as a job's runner does.
    let answer = tokio::task::spawn_blocking(|| {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.set_receive_timeout(Some(Duration::from_secs(1))).unwrap();
        let (control, server) = Channel::pair().unwrap();
        control.send_with_fd(&1_u8, theirs.as_fd()).unwrap();
        let (_, end) = server.recv_with_fd::<u8>().unwrap().unwrap();
        Channel::from_fd(end.unwrap()).send(&vec![0_u8; 100_000]).unwrap();
        ours.recv::<Vec<u8>>().unwrap().unwrap().len()
    });
    let length = answer.await.unwrap();
    peer.write_all(format!("{length}").as_bytes()).await.unwrap();
    let timed_out = tokio::time::timeout(Duration::from_millis(20), terminate.recv()).await.is_err();
    assert!(timed_out, "no signal was sent");
    peer.shutdown().await.unwrap();
}

fn the_core_serves_and_stores_confined() {
    let directory = playground();
    let notify = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    let journal = UnixDatagram::bind(directory.path().join("journal")).unwrap();
    for socket in ["notify", "journal"] {
        std::os::unix::fs::chown(directory.path().join(socket), Some(65534), None).unwrap();
    }
    let role = start("core", &[directory.path().to_str().unwrap()]);
    let port: u16 = role.channel.recv().unwrap().expect("the core listens");
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.write_all(b"hello").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "100000");
    assert_eq!(role.process.wait().unwrap(), Ended::Code(0));
    for socket in [notify, journal] {
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert!(socket.recv(&mut [0; 64]).unwrap() > 0);
    }
}

/// The role: a small keeper. Answers each request with a signature.
pub fn keeper() -> ExitCode {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap();
    let (_confined, channel) = confined("keeper", &[]);
    while let Some(request) = channel.recv::<Vec<u8>>().unwrap() {
        let signature = key.sign(&random, &request).unwrap();
        eprintln!("  keeper: signed {} bytes", request.len());
        channel.send(&signature.as_ref().to_vec()).unwrap();
    }
    ExitCode::SUCCESS
}

fn the_keeper_signs_confined() {
    let role = start("keeper", &[]);
    for length in [1, 100_000] {
        role.channel.send(&vec![7_u8; length]).unwrap();
        let signature: Vec<u8> = role.channel.recv().unwrap().expect("a signature");
        assert!(signature.len() > 60);
    }
    drop(role.channel);
    assert_eq!(role.process.wait().unwrap(), Ended::Code(0));
}
