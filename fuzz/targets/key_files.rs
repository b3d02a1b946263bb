//! The files of the key directory, wrapped keys and typed codes: `keeper::{keyslots, container, keyring, wrap, code, shares}`.
//! Trusts: nothing of the disk, nothing of the core.
//! Touches: nothing.
//! Next: the keeper opens the TPM's slot with what was read.

use std::sync::OnceLock;

use ring::digest::{SHA256, digest};
use salama::base::ids::CallId;
use salama::ipc::keeper::WrappedDek;

use super::{Target, edited, scripts, secret};
use crate::keeper::code::{self, Sort};
use crate::keeper::container::{self, MacKey};
use crate::keeper::hierarchy::Root;
use crate::keeper::keyring;
use crate::keeper::keyslots::{EpochPlaces, Keyslots, Kind, PIN_ROUNDS, PinSalt, SharesSlot, TpmSlot};
use crate::keeper::recovery::Encrypted;
use crate::keeper::shares::Share;
use crate::keeper::tpm::StorageRoot;
use crate::keeper::tpm::policy::{Approval, Authority, Measured, Pcrs, Policy};
use crate::keeper::tpm::seal::Sealed;
use crate::keeper::wrap::DekWrapper;
use salama::base::secret::SecretText;

/// First byte 0: a keyslot file. 1: the same, with a checksum that is right. Else: a script that bends a genuine one and repairs its checksum.
pub const KEYSLOT: Target = Target { name: "keyslot", run: keyslot, seeds: keyslot_seeds, ..BASE };
/// As [`KEYSLOT`], the file that boxes had before there were several slots.
/// Even first byte: text typed as a code, odd: as a share.
pub const PRINTED_CODE: Target = Target {
    name: "printed_code",
    run: printed_code,
    seeds: printed_seeds,
    words: &[b"0123ABCD", b"-", b" ", b"o", b"L", b"U", b"\xc3\xa9"],
    ..BASE
};
/// As [`KEYSLOT`], a keyring.
pub const KEYRING: Target = Target { name: "keyring", run: keyring, seeds: keyring_seeds, ..BASE };
/// Even first byte: a wrapped DEK. Odd: a script that bends a genuine one.
pub const WRAPPED_KEY: Target = Target { name: "wrapped_key", run: wrapped_key, seeds: wrapped_seeds, ..BASE };

const BASE: Target = Target {
    name: "",
    run: keyslot,
    seeds: Vec::new,
    corpus: "",
    words: &[b"salama keyslots\n", b"salama tpm slot\n", b"salama keyring \n", b"\x00\x01", b"\x00\x02", b"\xff\xff\xff\xff\x0f"],
    memory: 256 << 10,
    longest: 2048,
    smoke: 8000,
};

/// Of the checksum at a file's end, bytes.
pub(super) const SUM: usize = 32;
const CALL: CallId = CallId::from_bytes([1; 16]);

fn root() -> Root {
    Root::new(&secret(7))
}

fn mac() -> MacKey {
    crate::keeper::slots::file_mac(&root()).unwrap()
}

/// What anyone who may write files can do.
pub(super) fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let sum = digest(&SHA256, &file);
    file.extend(sum.as_ref());
    file
}

/// The file that an input stands for.
pub(super) fn file_of(data: &[u8], genuine: &[u8]) -> Vec<u8> {
    match data.split_first() {
        Some((0, file)) => file.to_vec(),
        Some((1, file)) => with_checksum(file.to_vec()),
        Some((_, script)) => with_checksum(edited(&genuine[..genuine.len() - SUM], script)),
        None => Vec::new(),
    }
}

/// A file with every sort of slot; what counts here is who wrote it.
fn genuine_slots() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let measured = Measured { pcrs: Pcrs::new(1 << 7 | 1 << 11).unwrap(), digest: [8; 32] };
        let approval = Approval { measured: measured.clone(), signature: vec![9; 64] };
        let tpm = |policy| TpmSlot {
            storage_root: StorageRoot { name: vec![1; 34], handle: 0x8100_0001 },
            policy,
            pin: Some(PinSalt { salt: [4; 16], rounds: PIN_ROUNDS }),
            sealed: Sealed { public: vec![2; 78], private: vec![3; 126] },
            half: 0x0181_5a00,
            wrapped: vec![5; 65],
        };
        let encrypted = || Encrypted { public_key: [6; 32], encapsulated: [7; 32], ciphertext: vec![8; 49] };
        let bound = Policy { measured: Some(measured), authority: None, pin: true };
        let mut keyslots = Keyslots::with(Kind::Tpm(tpm(bound)), 1);
        let authority = Authority { pcrs: Pcrs::new(1 << 7 | 1 << 11).unwrap(), point: vec![1; 64], approvals: vec![approval] };
        keyslots.add(Kind::Tpm(tpm(Policy { measured: None, authority: Some(authority), pin: true })), 2).unwrap();
        keyslots.add(Kind::Recovery(encrypted()), 3).unwrap();
        keyslots.add(Kind::Shares(SharesSlot { encrypted: encrypted(), threshold: 2, count: 3, set: 4 }), 4).unwrap();
        let storage_root = StorageRoot { name: vec![1; 34], handle: 0x8100_0001 };
        keyslots.epoch = Some(EpochPlaces { storage_root, first: 0x0181_5a80, carried: vec![1, 2] });
        keyslots.write(&mac()).unwrap()
    })
}

/// Promise: a file of keyslots counts only when it is the very one that this box wrote; before that no more is read of it than leads to
/// the key, and a bounded amount of work is done.
fn keyslot(data: &[u8]) {
    let file = file_of(data, genuine_slots());
    let read = Keyslots::read(&file).map(|read| read.authenticate(&mac()));
    assert_eq!(matches!(read, Ok(Ok(_))), file == genuine_slots(), "keyslots that this box did not write, or not those that it wrote");
}

fn keyslot_seeds() -> Vec<Vec<u8>> {
    seeds_of(genuine_slots())
}

/// Promise: what was typed is refused, or has just the bytes of a whole code or share, and is written back as the same.
fn printed_code(data: &[u8]) {
    let Some((first, typed)) = data.split_first() else { return };
    let sort = if first.is_multiple_of(2) { Sort::Code } else { Sort::Share };
    let Ok(typed) = std::str::from_utf8(typed) else { return };
    let Ok(bytes) = code::read(sort, &SecretText::new(typed.to_owned())) else { return };
    assert_eq!(bytes.len(), 4 * sort.groups(), "a part of a code was taken");
    let again = code::read(sort, &code::write(sort, &bytes)).map(|again| *again == *bytes);
    assert!(matches!(again, Ok(true)), "a code does not read back");
    if sort == Sort::Share {
        drop(Share::read(&bytes));
    }
}

fn printed_seeds() -> Vec<Vec<u8>> {
    let typed = |first: u8, sort: Sort| {
        let bytes: Vec<u8> = (1..=u8::try_from(4 * sort.groups()).unwrap()).collect();
        [&[first], code::write(sort, &bytes).expose().as_bytes()].concat()
    };
    vec![typed(0, Sort::Code), typed(1, Sort::Share), typed(0, Sort::Code).to_ascii_lowercase(), b"\0UUUUUUUU".to_vec()]
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
    seeds_of(genuine_keyring())
}

/// Promise: a call's key opens only from the very bytes that were given out for that call.
fn wrapped_key(data: &[u8]) {
    static GENUINE: OnceLock<(DekWrapper, WrappedDek)> = OnceLock::new();
    let (wrapper, genuine) = GENUINE.get_or_init(|| {
        let wrapper = DekWrapper::new(&secret(9), 1).unwrap();
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

/// A genuine file as it is and without its checksum, and scripts that bend it.
pub(super) fn seeds_of(file: &[u8]) -> Vec<Vec<u8>> {
    bent_and([[&[0], file].concat(), [&[1], &file[..file.len() - SUM]].concat()])
}

fn bent_and(files: [Vec<u8>; 2]) -> Vec<Vec<u8>> {
    scripts().into_iter().map(|script| [&[3], script.as_slice()].concat()).chain(files).collect()
}
