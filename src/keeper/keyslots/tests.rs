//! The file of keyslots without a TPM.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `tests/keyslots.rs` has a TPM.

use super::*;
use crate::base::secret::Secret;
use crate::keeper::hierarchy::Root;
use crate::keeper::slots::file_mac;

fn root(byte: u8) -> Root {
    let key = Secret::try_fill(|to: &mut [u8; 32]| {
        to.fill(byte);
        Ok::<(), ()>(())
    });
    Root::new(&key.unwrap())
}

fn tpm(half: u32) -> Kind {
    Kind::Tpm(TpmSlot {
        storage_root: StorageRoot { name: vec![1; 34], handle: 0 },
        policy: Policy::default(),
        pin: None,
        sealed: Sealed { public: vec![2; 78], private: vec![3; 158] },
        half,
        wrapped: vec![4; 65],
    })
}

fn code() -> Kind {
    Kind::Recovery(Encrypted { public_key: [5; 32], encapsulated: [6; 32], ciphertext: vec![7; 49] })
}

fn file() -> Vec<u8> {
    let mut keyslots = Keyslots::with(tpm(0x0181_5a00), 1);
    keyslots.add(code(), 2).unwrap();
    let storage_root = StorageRoot { name: vec![1; 34], handle: 0 };
    keyslots.epoch = Some(EpochPlaces { storage_root, first: 0x0181_5a80, carried: vec![1, 2] });
    keyslots.write(&file_mac(&root(1)).unwrap()).unwrap()
}

fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    file.truncate(file.len() - 32);
    let sum = ring::digest::digest(&ring::digest::SHA256, &file);
    file.extend(sum.as_ref());
    file
}

#[test]
fn a_file_reads_back_with_its_slots() {
    let read = Keyslots::read(&file()).unwrap().authenticate(&file_mac(&root(1)).unwrap()).unwrap();
    let ids: Vec<_> = read.slots.iter().map(|slot| (slot.id, slot.kind.word())).collect();
    assert_eq!((read.generation, read.next, ids), (2, 3, vec![(1, "tpm"), (2, "recovery")]));
}

#[test]
fn no_bent_or_cut_file_counts_with_a_repaired_checksum_neither() {
    let whole = file();
    let mac = || file_mac(&root(1)).unwrap();
    for at in 0..whole.len() - 32 {
        let mut bent = whole.clone();
        bent[at] ^= 0x20;
        assert!(Keyslots::read(&bent).is_err(), "byte {at}");
        let taken = Keyslots::read(&with_checksum(bent)).map(|read| read.authenticate(&mac()).is_ok());
        assert!(!matches!(taken, Ok(true)), "byte {at}");
    }
    for length in 0..whole.len() {
        assert!(Keyslots::read(&whole[..length]).is_err(), "cut to {length}");
    }
    assert!(Keyslots::read(&whole).unwrap().authenticate(&file_mac(&root(2)).unwrap()).is_err(), "another box's");
}

#[test]
fn numbers_are_never_used_twice_and_the_last_slot_stays() {
    let mut keyslots = Keyslots::with(tpm(0x0181_5a00), 1);
    assert!(matches!(keyslots.remove(1), Err(KeyslotsError::Last)));
    assert_eq!(keyslots.add(code(), 2).unwrap(), 2);
    keyslots.remove(2).unwrap();
    assert_eq!(keyslots.add(code(), 2).unwrap(), 3);
    assert!(matches!(keyslots.remove(2), Err(KeyslotsError::NoSlot(2))));
}

#[test]
fn the_half_of_a_slot_that_goes_is_left_over() {
    let mut keyslots = Keyslots::with(tpm(0x0181_5a00), 1);
    keyslots.exchange(1, tpm(0x0181_5a01), 2).unwrap();
    keyslots.add(code(), 2).unwrap();
    keyslots.remove(1).unwrap();
    let left: Vec<u32> = keyslots.leftovers.iter().map(|half| half.index).collect();
    assert_eq!(left, [0x0181_5a00, 0x0181_5a01]);
}

#[test]
fn slots_that_contradict_each_other_are_refused() {
    let written = |change: fn(&mut Keyslots)| {
        let mut keyslots = Keyslots::with(tpm(0x0181_5a00), 1);
        change(&mut keyslots);
        Keyslots::read(&keyslots.write(&file_mac(&root(1)).unwrap()).unwrap()).map(drop)
    };
    assert!(written(|_| ()).is_ok());
    let contradictions: [fn(&mut Keyslots); 5] = [
        |keyslots| keyslots.slots.clear(),
        |keyslots| keyslots.slots.push(keyslots.slots[0].clone()),
        |keyslots| keyslots.next = 1,
        |keyslots| keyslots.slots[0].kind = tpm(0x0180_0001),
        |keyslots| {
            let Kind::Tpm(slot) = &mut keyslots.slots[0].kind else { return };
            slot.pin = Some(PinSalt { salt: [0; 16], rounds: u32::MAX });
        },
    ];
    for change in contradictions {
        assert!(matches!(written(change), Err(KeyslotsError::Senseless)));
    }
}

#[test]
fn there_is_room_for_sixteen() {
    let mut keyslots = Keyslots::with(tpm(0x0181_5a00), 1);
    (1..SLOTS_MAX).for_each(|_| assert!(keyslots.add(code(), 1).is_ok()));
    assert!(matches!(keyslots.add(code(), 1), Err(KeyslotsError::Full)));
}

/// As the program of before there were epochs wrote it: the file of [`file`], without epochs.
const VERSION_1: &[u8] = include_bytes!("version1.keyslots");

#[test]
fn a_file_of_before_there_were_epochs_is_read_and_written_anew() {
    let mac = || file_mac(&root(1)).unwrap();
    let mut read = Keyslots::read(VERSION_1).unwrap().authenticate(&mac()).unwrap();
    let before = Keyslots { generation: 2, epoch: None, ..Keyslots::read(&file()).unwrap().authenticate(&mac()).unwrap() };
    assert_eq!(read, before);
    let written = read.write(&mac()).unwrap();
    assert_eq!(written[16..18], [0, 2], "the next change lifts it");
    assert_eq!(Keyslots::read(&written).unwrap().authenticate(&mac()).unwrap(), Keyslots { generation: 3, ..before });
}

#[test]
fn the_version_of_a_file_cannot_be_changed() {
    let mac = || file_mac(&root(1)).unwrap();
    for (whole, other) in [(VERSION_1.to_vec(), 2), (file(), 1), (file(), 3)] {
        let mut bent = whole;
        bent[17] = other;
        let taken = Keyslots::read(&with_checksum(bent)).map(|read| read.authenticate(&mac()).is_ok());
        assert!(!matches!(taken, Ok(true)), "{other}");
    }
}
