//! What an epoch and its places promise, also where a move is cut off.
//! Trusts: nothing.
//! Touches: memory.
//! Next: nobody.

use super::*;

/// The memory of a machine whose power fails after so many writes.
#[derive(Default)]
struct Machine {
    places: [Option<(u32, [u8; 32])>; 2],
    paper: Vec<(u32, [u8; 32])>,
    left: Option<usize>,
    held_by_another: bool,
    written: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct PowerCut;

fn parts(epoch: &Epoch) -> (u32, [u8; 32]) {
    (epoch.number, *epoch.secret.expose())
}

impl Machine {
    fn write(&mut self) -> Result<(), PowerCut> {
        match &mut self.left {
            Some(0) => Err(PowerCut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Places for Machine {
    type Error = PowerCut;

    fn hold(&mut self) -> Result<(), PowerCut> {
        if self.held_by_another { Err(PowerCut) } else { Ok(()) }
    }

    fn release(&mut self) {}

    fn read(&mut self, place: usize) -> Result<Option<Epoch>, PowerCut> {
        Ok(self.places[place].and_then(|(number, secret)| Epoch::from_parts(number, &secret)))
    }

    fn write(&mut self, place: usize, epoch: Option<&Epoch>) -> Result<(), PowerCut> {
        self.write()?;
        self.written += 1;
        self.places[place] = epoch.map(parts);
        Ok(())
    }

    fn are_elsewhere(&mut self) -> Result<bool, PowerCut> {
        Ok(false)
    }

    fn carried(&mut self) -> Result<Vec<u32>, PowerCut> {
        Ok(self.paper.iter().map(|(number, _)| *number).collect())
    }

    fn carry(&mut self, epochs: &[&Epoch]) -> Result<(), PowerCut> {
        self.write()?;
        self.paper = epochs.iter().map(|epoch| parts(epoch)).collect();
        Ok(())
    }
}

/// A machine at epoch 1, and the store's word on it: number and the secret that opens its DEKs.
fn machine() -> (Machine, (u32, [u8; 32])) {
    let first = parts(&Epoch::new(1).unwrap());
    (Machine { places: [Some(first), None], paper: vec![first], ..Machine::default() }, first)
}

/// One move as core and keeper do it: `committed` is what the store then says.
fn step(machine: &mut Machine, store: &mut (u32, [u8; 32])) -> Result<(), EpochError<PowerCut>> {
    let mut epochs = Epochs::open(machine).map_err(EpochError::Places)?;
    epochs.settle(machine, Some(store.0), false)?;
    let number = epochs.begin(machine)?;
    // The store's commit is a write, too.
    machine.write().map_err(EpochError::Places)?;
    *store = parts(epochs.next().unwrap());
    assert_eq!(store.0, number);
    epochs.committed(machine, number)
}

#[test]
fn a_power_cut_after_any_write_loses_nothing_and_brings_nothing_back() {
    for cut in 0..=5 {
        for second_cut in 0..=5 {
            let (mut machine, mut store) = machine();
            let erased = store;
            machine.left = Some(cut);
            let whole = step(&mut machine, &mut store).is_ok();
            assert_eq!(whole, cut >= 5, "five writes, the store's among them");
            machine.left = Some(second_cut);
            let _ = step(&mut machine, &mut store);
            machine.left = None;

            let mut epochs = Epochs::open(&mut machine).unwrap();
            assert_eq!(epochs.settle(&mut machine, Some(store.0), false), Ok(store.0), "{cut} {second_cut}");
            assert_eq!(epochs.current().unwrap().secret.expose(), &store.1, "{cut} {second_cut}");
            assert!(machine.paper.contains(&store), "the paper opens what the TPM does: {cut} {second_cut}");
            if store.0 > 1 {
                let left = machine.places.iter().flatten().chain(&machine.paper);
                assert!(left.clone().all(|epoch| *epoch != erased), "{cut} {second_cut}");
                assert_eq!(epochs.settle(&mut machine, Some(1), false), Err(EpochError::Other { here: epochs_max(&machine) }));
            }
        }
    }
}

fn epochs_max(machine: &Machine) -> u32 {
    machine.places.iter().flatten().map(|(number, _)| *number).max().unwrap()
}

#[test]
fn an_epoch_that_was_not_committed_is_never_used_and_written_over() {
    let (mut machine, mut store) = machine();
    let mut epochs = Epochs::open(&mut machine).unwrap();
    epochs.settle(&mut machine, Some(1), false).unwrap();
    epochs.begin(&mut machine).unwrap();
    epochs.used();
    let given_up = parts(epochs.next().unwrap());
    epochs.abort();
    assert!(epochs.next().is_none());
    assert_eq!(epochs.committed(&mut machine, 2), Err(EpochError::Unsettled));
    step(&mut machine, &mut store).unwrap();
    assert_eq!(store.0, 2);
    assert!(machine.places.iter().flatten().all(|epoch| *epoch != given_up));
}

#[test]
fn while_both_could_count_the_store_must_say_which() {
    let (mut machine, _) = machine();
    let mut epochs = Epochs::open(&mut machine).unwrap();
    epochs.settle(&mut machine, Some(1), false).unwrap();
    epochs.begin(&mut machine).unwrap();
    let mut again = Epochs::open(&mut machine).unwrap();
    assert!(again.current().is_none());
    assert_eq!(again.begin(&mut machine), Err(EpochError::Unsettled));
    assert_eq!(again.settle(&mut machine, Some(7), false), Err(EpochError::Older { here: 2 }));
    assert_eq!(again.settle(&mut machine, Some(2), false), Ok(2));
    assert!(machine.places[0].is_none());
}

#[test]
fn a_store_that_never_held_a_call_takes_the_only_epoch_and_decides_between_no_two() {
    let (mut machine, _) = machine();
    assert_eq!(Epochs::open(&mut machine).unwrap().settle(&mut machine, None, false), Ok(1));
    let nothing = Epochs::open(&mut Machine::default()).unwrap().settle(&mut Machine::default(), None, false);
    assert_eq!(nothing, Err(EpochError::Nothing));

    // A move was begun and not committed; then the state directory is not there at a start.
    let mut epochs = Epochs::open(&mut machine).unwrap();
    epochs.settle(&mut machine, Some(1), false).unwrap();
    epochs.begin(&mut machine).unwrap();
    let (places, paper) = (machine.places, machine.paper.clone());
    let mut epochs = Epochs::open(&mut machine).unwrap();
    assert_eq!(epochs.settle(&mut machine, None, false), Err(EpochError::EmptyStore));
    assert!(epochs.current().is_none());
    assert_eq!(epochs.begin(&mut machine), Err(EpochError::Unsettled));
    assert_eq!((machine.places, &machine.paper), (places, &paper), "nothing is destroyed");
    // It is there again, or it is gone for good.
    assert_eq!(Epochs::open(&mut machine).unwrap().settle(&mut machine, Some(1), false), Ok(1));
    assert_eq!(Epochs::open(&mut machine).unwrap().settle(&mut machine, None, true), Ok(2));
}

#[test]
fn a_move_that_fails_before_anything_is_wrapped_writes_the_tpm_once() {
    let (mut machine, _) = machine();
    let mut epochs = Epochs::open(&mut machine).unwrap();
    epochs.settle(&mut machine, Some(1), false).unwrap();
    machine.held_by_another = true;
    for _ in 0..3 {
        assert_eq!(epochs.begin(&mut machine), Err(EpochError::Places(PowerCut)));
    }
    assert_eq!((machine.written, epochs.made()), (0, 0), "somebody is at the keyslots");
    machine.held_by_another = false;
    // The place can be written, the file cannot.
    machine.left = Some(1);
    for _ in 0..3 {
        assert_eq!(epochs.begin(&mut machine), Err(EpochError::Places(PowerCut)));
    }
    machine.left = None;
    for _ in 0..3 {
        assert_eq!(epochs.begin(&mut machine), Ok(2));
        epochs.abort();
    }
    assert_eq!((machine.written, epochs.made()), (1, 1));
    assert_eq!(machine.paper.len(), 2, "it is carried all the same");
    // What was wrapped by it may lie on the disk.
    epochs.begin(&mut machine).unwrap();
    epochs.used();
    let before = parts(epochs.next().unwrap());
    assert_eq!(epochs.begin(&mut machine), Ok(2), "the core may ask again for the one that it has");
    assert_eq!(parts(epochs.next().unwrap()), before);
    epochs.abort();
    epochs.begin(&mut machine).unwrap();
    assert_ne!(parts(epochs.next().unwrap()), before);
    assert_eq!((machine.written, epochs.made()), (2, 2));
}

#[test]
fn what_a_place_holds_is_read_back_and_an_empty_one_is_none() {
    let epoch = Epoch::new(7).unwrap();
    let read = Epoch::of_place(&Epoch::to_place(Some(&epoch)).unwrap()).unwrap();
    assert_eq!(parts(&read), parts(&epoch));
    assert!(Epoch::of_place(&Epoch::to_place(None).unwrap()).is_none());
}
