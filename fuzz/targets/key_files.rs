//! The files of the key directory and wrapped keys: `keeper::{container, keyring, wrap}`.
//! Trusts: nothing of the disk, nothing of the core.
//! Touches: nothing.
//! Next: the keeper opens the TPM's slot with what was read.

use std::sync::OnceLock;

use ring::digest::{SHA256, digest};
use salama::base::ids::CallId;
use salama::ipc::keeper::WrappedDek;

use super::{Target, edited, scripts, secret};
use crate::keeper::container::{self, MacKey, TPM_SLOT};
use crate::keeper::hierarchy::Root;
use crate::keeper::keyring;
use crate::keeper::tpm::Sealed;
use crate::keeper::wrap::DekWrapper;

/// First byte 0: a keyslot file. 1: the same, with a checksum that is right. Else: a script that bends a genuine one and repairs its checksum.
pub const KEYSLOT: Target = Target { name: "keyslot", run: keyslot, seeds: keyslot_seeds, ..BASE };
/// As [`KEYSLOT`], a keyring.
pub const KEYRING: Target = Target { name: "keyring", run: keyring, seeds: keyring_seeds, ..BASE };
/// Even first byte: a wrapped DEK. Odd: a script that bends a genuine one.
pub const WRAPPED_KEY: Target = Target { name: "wrapped_key", run: wrapped_key, seeds: wrapped_seeds, ..BASE };

const BASE: Target = Target {
    name: "",
    run: keyslot,
    seeds: Vec::new,
    corpus: "",
    words: &[b"salama tpm slot\n", b"salama keyring \n", b"\x00\x01", b"\x00\x02", b"\xff\xff\xff\xff\x0f"],
    memory: 256 << 10,
    longest: 2048,
    smoke: 8000,
};

const SUM: usize = 32;
const CALL: CallId = CallId::from_bytes([1; 16]);

fn root() -> Root {
    Root::new(&secret(7))
}

fn mac() -> MacKey {
    crate::keeper::slots::file_mac(&root()).unwrap()
}

/// What anyone who may write files can do.
fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let sum = digest(&SHA256, &file);
    file.extend(sum.as_ref());
    file
}

/// The file that an input stands for.
fn file_of(data: &[u8], genuine: &[u8]) -> Vec<u8> {
    match data.split_first() {
        Some((0, file)) => file.to_vec(),
        Some((1, file)) => with_checksum(file.to_vec()),
        Some((_, script)) => with_checksum(edited(&genuine[..genuine.len() - SUM], script)),
        None => Vec::new(),
    }
}

fn genuine_slot() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let sealed = Sealed { storage_root: vec![1; 34], public: vec![2; 78], private: vec![3; 126] };
        container::write(TPM_SLOT, &sealed, &mac()).unwrap()
    })
}

/// Promise: a keyslot counts only when it is the very file that this box wrote; before that no more is read of it than leads to the key.
fn keyslot(data: &[u8]) {
    let file = file_of(data, genuine_slot());
    let read = container::read::<Sealed>(TPM_SLOT, &file).and_then(|slot| slot.authenticate(&mac()));
    assert_eq!(read.is_ok(), file == genuine_slot(), "a keyslot that this box did not write, or not the one that it wrote");
}

fn keyslot_seeds() -> Vec<Vec<u8>> {
    let file = genuine_slot();
    bent_and([[&[0], file].concat(), [&[1], &file[..file.len() - SUM]].concat()])
}

/// A keyring whose keys and certificates are no such things: what counts here is who wrote it.
fn genuine_keyring() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let stored = ("box".to_owned(), vec![1_u8; 90], vec![2_u8; 90], vec![vec![3_u8; 90], vec![4_u8; 90]], vec![5_u8; 90]);
        container::write(container::KEYRING, &stored, &mac()).unwrap()
    })
}

/// Promise: as [`keyslot`]; and keys that are not wrapped by this root do not open.
fn keyring(data: &[u8]) {
    let file = file_of(data, genuine_keyring());
    match keyring::open(&root(), &file) {
        Ok(keyring) => {
            assert!(file == genuine_keyring(), "a keyring that this box did not write");
            assert!(keyring.open_tls_key(&root()).is_err() && keyring.open_authority(&root()).is_err(), "a made-up key opened");
        }
        Err(_) => assert!(file != genuine_keyring(), "the keyring that this box wrote does not open"),
    }
}

fn keyring_seeds() -> Vec<Vec<u8>> {
    let file = genuine_keyring();
    bent_and([[&[0], file].concat(), [&[1], &file[..file.len() - SUM]].concat()])
}

/// Promise: a call's key opens only from the very bytes that were given out for that call.
fn wrapped_key(data: &[u8]) {
    static GENUINE: OnceLock<(DekWrapper, WrappedDek)> = OnceLock::new();
    let (wrapper, genuine) = GENUINE.get_or_init(|| {
        let wrapper = DekWrapper::new(&secret(9)).unwrap();
        let (_, wrapped) = wrapper.new_dek(CALL).unwrap();
        (wrapper, wrapped)
    });
    let Some((kind, rest)) = data.split_first() else { return };
    let bent = WrappedDek(if kind.is_multiple_of(2) { rest.to_vec() } else { edited(&genuine.0, rest) });
    assert_eq!(wrapper.open(CALL, &bent).is_ok(), bent == *genuine, "a bent key opened, or a genuine one did not");
    assert!(wrapper.open(CallId::from_bytes([2; 16]), &bent).is_err(), "it opened for another call");
}

fn wrapped_seeds() -> Vec<Vec<u8>> {
    let mut seeds = bent_and([vec![0, 1, 0, 0, 0, 0], [&[0], [1; 65].as_slice()].concat()]);
    seeds.iter_mut().for_each(|seed| seed[0] %= 2);
    seeds
}

fn bent_and(files: [Vec<u8>; 2]) -> Vec<Vec<u8>> {
    scripts().into_iter().map(|script| [&[3], script.as_slice()].concat()).chain(files).collect()
}
