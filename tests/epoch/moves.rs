//! Moves of the erasure epoch on a real (software) TPM: done, killed at any step, from an old image, in another machine.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use nix::unistd::{Uid, User, chown, geteuid};
use salama::base::clock::Timestamp;
use salama::base::ids::CallId;
use salama::ipc::keeper::{EpochReply, EpochRequest, ErasedClass, ErasureClaim, KeeperDenial, UnwrapPurpose, WrappedDek};
use salama::ipc::keyslots::{Conditions, NewSlot, Task};
use salama::keys::{Keeper, KeeperError};
use tempfile::TempDir;

use crate::box_with_keys::{Bench, Process};
use crate::faulty_tpm::FaultyTpm;
use crate::keeper::code::{self, Sort};
use crate::keeper::keyslots::{Keyslots, Kind};
use crate::keeper::recovery;
use crate::keeper::replace::Exclusive;
use crate::key_console::Operator;
use crate::swtpm::Swtpm;

const KEPT: CallId = CallId::from_bytes([1; 16]);
const ERASED: CallId = CallId::from_bytes([2; 16]);
/// `TPM_RC_NV_RATE`'s neighbour for failures of the chip: `TPM_RC_FAILURE`.
const FAILURE: u32 = 0x101;

type Opened = Result<[u8; 32], KeeperDenial>;

fn served(bench: &Bench, tcti: &str) -> (Keeper, Process) {
    let (channel, process) = bench.start("serve", tcti, &[]);
    let (keeper, _) = Keeper::connect(channel).unwrap_or_else(|error| panic!("the keeper starts: {error}"));
    (keeper, process)
}

fn serve(bench: &Bench) -> (Keeper, Process) {
    served(bench, &bench.tpm.tcti())
}

fn said(answer: Result<EpochReply, KeeperError>) -> Result<EpochReply, KeeperDenial> {
    answer.map_err(|error| match error {
        KeeperError::Denied(denial) => denial,
        // It was killed.
        KeeperError::Gone(_) => KeeperDenial::Internal,
        error => panic!("not a denial: {error}"),
    })
}

fn settle(keeper: &Keeper, store: Option<u32>) -> Result<u32, KeeperDenial> {
    said(keeper.epoch(EpochRequest::Settle { store })).map(number)
}

fn begin(keeper: &Keeper) -> Result<u32, KeeperDenial> {
    said(keeper.epoch(EpochRequest::Begin)).map(number)
}

fn number(reply: EpochReply) -> u32 {
    match reply {
        EpochReply::At { number } => number,
        _ => panic!("no number"),
    }
}

fn committed(keeper: &Keeper, number: u32) -> Result<(), KeeperDenial> {
    said(keeper.epoch(EpochRequest::Committed { number })).map(drop)
}

fn try_rewrap(keeper: &Keeper, call: CallId, wrapped: &WrappedDek) -> Result<WrappedDek, KeeperDenial> {
    match said(keeper.epoch(EpochRequest::Rewrap(vec![(call, wrapped.clone())])))? {
        EpochReply::Rewrapped(mut all) => Ok(all.remove(0).expect("it opens")),
        _ => panic!("not re-wrapped"),
    }
}

fn rewrap(keeper: &Keeper, call: CallId, wrapped: &WrappedDek) -> WrappedDek {
    try_rewrap(keeper, call, wrapped).unwrap_or_else(|denial| panic!("not re-wrapped: {denial}"))
}

fn opened(keeper: &Keeper, call: CallId, wrapped: &WrappedDek) -> Opened {
    match keeper.unwrap_dek(call, wrapped, UnwrapPurpose::Read) {
        Ok(dek) => Ok(*dek.expose()),
        Err(KeeperError::Denied(denial)) => Err(denial),
        Err(error) => panic!("not a denial: {error}"),
    }
}

/// What the core would have in its store: the epoch's number and the one call that is kept.
struct Store {
    number: u32,
    wrapped: WrappedDek,
}

/// One move; the core commits between the two steps of the keeper.
fn move_on(keeper: &Keeper, store: &mut Store) -> Result<(), KeeperDenial> {
    let number = begin(keeper)?;
    *store = Store { number, wrapped: try_rewrap(keeper, KEPT, &store.wrapped)? };
    committed(keeper, number)
}

fn copy(from: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Puts the files back byte for byte; they keep their owner.
fn put_back(copy: &TempDir, to: &Path) {
    for entry in fs::read_dir(copy.path()).unwrap().map(Result::unwrap) {
        fs::write(to.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
    }
}

#[test]
fn what_was_erased_before_a_move_opens_nowhere_from_an_old_image_on_this_machine_neither() {
    let bench = Bench::provisioned();
    let (keeper, process) = serve(&bench);
    assert_eq!(settle(&keeper, None), Ok(1));
    let (kept, wrapped) = keeper.new_dek(KEPT).unwrap();
    let (_, erased) = keeper.new_dek(ERASED).unwrap();
    let image = copy(&bench.keys());
    let old = Store { number: 1, wrapped: wrapped.clone() };
    let mut store = Store { number: 1, wrapped };
    move_on(&keeper, &mut store).unwrap();
    assert_eq!(opened(&keeper, KEPT, &store.wrapped), Ok(*kept.expose()));
    assert_eq!(opened(&keeper, ERASED, &erased), Err(KeeperDenial::WrongKey));
    drop((keeper, process));

    // The old key directory and the old store on the same machine with the same TPM.
    put_back(&image, &bench.keys());
    let (keeper, _process) = serve(&bench);
    for lie in [Some(1), None, Some(2), Some(3)] {
        let told = settle(&keeper, lie);
        assert_eq!(told.is_ok(), matches!(lie, None | Some(2)), "{lie:?}");
        for (call, wrapped) in [(KEPT, &old.wrapped), (ERASED, &erased)] {
            assert_eq!(opened(&keeper, call, wrapped), Err(KeeperDenial::WrongKey), "{lie:?}");
        }
    }
    assert_eq!(opened(&keeper, KEPT, &store.wrapped), Ok(*kept.expose()));
}

/// A box whose epoch moves again and again while something goes wrong, and what its store would hold.
struct Hardship<'a> {
    bench: &'a Bench,
    store: Store,
    kept: [u8; 32],
    /// Of a call that was made before the last move and is not re-wrapped, and the epoch then.
    erased: Option<(u32, WrappedDek)>,
    /// Moves that failed before and after the store had committed them.
    failed: [usize; 2],
}

impl<'a> Hardship<'a> {
    fn begins(bench: &'a Bench) -> Self {
        assert!(geteuid().is_root(), "run the tests as root: they start keepers as several users");
        bench.set_limits("[erasure]\nper_hour = 600\n[start]\nper_hour = 600\n");
        let (keeper, _process) = serve(bench);
        settle(&keeper, None).unwrap();
        let (kept, wrapped) = keeper.new_dek(KEPT).unwrap();
        Self { bench, store: Store { number: 1, wrapped }, kept: *kept.expose(), erased: None, failed: [0; 2] }
    }

    /// What holds for a keeper that was started after any failure.
    fn holds(&self, keeper: &Keeper, step: usize) {
        assert_eq!(settle(keeper, Some(self.store.number)), Ok(self.store.number), "step {step}");
        assert_eq!(opened(keeper, KEPT, &self.store.wrapped), Ok(self.kept), "step {step}");
        if let Some((number, wrapped)) = &self.erased {
            // Where the store has not committed, it still has it.
            let opens = opened(keeper, ERASED, wrapped);
            assert_eq!(opens.is_ok(), *number == self.store.number, "step {step}: {opens:?}");
        }
    }

    /// A move, in which `harm` is done; whether it was whole.
    fn moves(&mut self, (keeper, process): (Keeper, Process), step: usize, harm: impl FnOnce(&Process)) -> bool {
        self.holds(&keeper, step);
        let before = self.store.number;
        self.erased = Some((before, keeper.new_dek(ERASED).unwrap().1));
        harm(&process);
        let whole = move_on(&keeper, &mut self.store).is_ok();
        self.failed[usize::from(self.store.number > before)] += usize::from(!whole);
        drop((keeper, process));
        // As the kernel's resource manager does for who was killed.
        for what in ["-t", "-l", "-s"] {
            self.bench.tpm.tool("tpm2_flushcontext", &[what]);
        }
        whole
    }

    fn ends(self) {
        let (keeper, _process) = serve(self.bench);
        self.holds(&keeper, usize::MAX);
        assert_eq!(carried(self.bench), [self.store.number]);
        assert!(self.failed.iter().all(|failed| *failed > 3), "{:?}", self.failed);
    }
}

#[test]
fn a_tpm_that_fails_at_any_command_of_a_move_loses_nothing_and_brings_nothing_back() {
    let bench = Bench::provisioned();
    bench.set_limits("[erasure]\nper_hour = 600\n[read]\nper_hour = 6000\n");
    let proxy = FaultyTpm::before(&bench.tpm, FAILURE);
    let mut hardship = Hardship::begins(&bench);
    for step in 0.. {
        let whole = hardship.moves(served(&bench, &proxy.tcti()), step, |_| proxy.refuse(step));
        let refused = proxy.has_refused();
        proxy.refuse(usize::MAX);
        // What cannot be put down in the TPM afterwards stays loaded: that alone spoils no move.
        assert!(whole || refused, "step {step}");
        if !refused {
            break;
        }
    }
    hardship.ends();
}

#[test]
fn a_keeper_that_is_killed_after_any_command_of_a_move_loses_nothing_and_brings_nothing_back() {
    let bench = Bench::provisioned();
    let proxy = FaultyTpm::before(&bench.tpm, FAILURE);
    let mut hardship = Hardship::begins(&bench);
    for step in 0.. {
        let whole = hardship.moves(served(&bench, &proxy.tcti()), step, |process| proxy.kill(step, process.0.id()));
        let killed = proxy.has_refused();
        proxy.refuse(usize::MAX);
        assert_eq!(whole, !killed, "step {step}");
        if whole {
            break;
        }
    }
    hardship.ends();
}

#[test]
fn a_keeper_that_is_killed_at_any_write_of_its_file_in_a_move_loses_nothing_and_brings_nothing_back() {
    let bench = Bench::provisioned();
    let mut hardship = Hardship::begins(&bench);
    let log = bench.base().join("strace");
    let mut step = 0;
    for call in ["unlinkat", "write", "fsync", "renameat"] {
        for nth in 1.. {
            step += 1;
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let mut launcher: Vec<OsString> = ["strace", "-q", "-o"].map(Into::into).to_vec();
            launcher.extend([log.clone().into(), "-e".into(), format!("trace={call}").into(), "-e".into(), inject.into()]);
            // The files of the keys only: the TPM is written to as well.
            for name in ["", ".keyslots.partial", "keyslots"] {
                launcher.extend(["-P".into(), bench.keys().join(name).into()]);
            }
            let (channel, process) = bench.start_by(&launcher, "serve", &bench.tpm.tcti(), &[]);
            // It tries at the start what it will need, and may not survive that.
            let Ok((keeper, _)) = Keeper::connect(channel) else { continue };
            if hardship.moves((keeper, process), step, |_| ()) {
                break;
            }
        }
    }
    hardship.ends();
}

#[test]
fn a_move_whose_file_cannot_be_written_is_finished_later() {
    let bench = Bench::provisioned();
    let (keeper, process) = serve(&bench);
    settle(&keeper, None).unwrap();
    let (kept, wrapped) = keeper.new_dek(KEPT).unwrap();
    let mut store = Store { number: 1, wrapped };
    // Somebody is at `salama keys` just now.
    let console = Exclusive::take(&bench.keys()).unwrap();
    assert_eq!(begin(&keeper), Err(KeeperDenial::EpochFailed));
    assert_eq!(opened(&keeper, KEPT, &store.wrapped), Ok(*kept.expose()));
    drop(console);
    let number = begin(&keeper).unwrap();
    store = Store { number, wrapped: rewrap(&keeper, KEPT, &store.wrapped) };
    let console = Exclusive::take(&bench.keys()).unwrap();
    assert_eq!(committed(&keeper, number), Err(KeeperDenial::EpochFailed));
    assert_eq!(opened(&keeper, KEPT, &store.wrapped), Ok(*kept.expose()));
    drop((keeper, process, console));
    let (keeper, _process) = serve(&bench);
    assert_eq!(settle(&keeper, Some(number)), Ok(number));
    assert_eq!(carried(&bench), [number]);
    assert_eq!(committed(&keeper, number), Ok(()), "again, which changes nothing");
    assert_eq!(opened(&keeper, KEPT, &store.wrapped), Ok(*kept.expose()));
}

#[test]
fn a_key_directory_that_the_keeper_may_not_write_is_told_at_the_start() {
    let bench = Bench::provisioned();
    drop(serve(&bench));
    let kept = copy(&bench.keys());
    // Somebody gave it away; what is in it still belongs to the keeper's account.
    chown(&bench.keys(), Some(Uid::from_raw(0)), None).unwrap();
    let (reason, _) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("the key directory cannot be written once the key keeper is confined"), "{reason}");
    chown(&bench.keys(), Some(User::from_name("nobody").unwrap().unwrap().uid), None).unwrap();
    let (_keeper, _process) = serve(&bench);
    assert_eq!(fs::read_dir(bench.keys()).unwrap().count(), fs::read_dir(kept.path()).unwrap().count(), "a trial leaves nothing");
}

#[test]
fn an_empty_state_directory_does_not_decide_between_two_epochs() {
    let bench = Bench::provisioned();
    let (keeper, process) = serve(&bench);
    settle(&keeper, None).unwrap();
    let (kept, wrapped) = keeper.new_dek(KEPT).unwrap();
    assert_eq!(begin(&keeper), Ok(2));
    drop((keeper, process));
    // The state directory was not mounted.
    let (keeper, process) = serve(&bench);
    assert_eq!(settle(&keeper, None), Err(KeeperDenial::EmptyStore));
    assert_eq!((begin(&keeper), keeper.new_dek(ERASED).is_err()), (Err(KeeperDenial::EpochOutOfOrder), true));
    drop((keeper, process));
    let (keeper, _process) = serve(&bench);
    assert_eq!(settle(&keeper, Some(1)), Ok(1));
    assert_eq!(opened(&keeper, KEPT, &wrapped), Ok(*kept.expose()));
}

fn keyslots(directory: &Path) -> Keyslots {
    Keyslots::read(&fs::read(directory.join("keyslots")).unwrap()).unwrap().before_authentication().clone()
}

fn carried(bench: &Bench) -> Vec<u32> {
    keyslots(&bench.keys()).epoch.unwrap().carried
}

fn add_code(bench: &Bench) -> String {
    let mut operator = Operator::default();
    operator.asks(bench, Task::Add { new: NewSlot::Recovery, with: None }).done();
    operator.sheets.remove(0)
}

#[test]
fn a_code_brings_the_epoch_into_another_machine_however_often_it_moved() {
    let mut bench = Bench::provisioned();
    let code = add_code(&bench);
    let (keeper, process) = serve(&bench);
    settle(&keeper, None).unwrap();
    let (kept, wrapped) = keeper.new_dek(KEPT).unwrap();
    let mut store = Store { number: 1, wrapped };
    for _ in 0..3 {
        move_on(&keeper, &mut store).unwrap();
    }
    drop((keeper, process));

    // The mainboard died.
    bench.tpm = Swtpm::start();
    Operator::who_answers(&[&code])
        .asks(&bench, Task::Reseal { slot: None, conditions: Conditions { new_tpm: true, ..Conditions::default() }, with: None })
        .done();
    let (keeper, _process) = serve(&bench);
    assert_eq!(settle(&keeper, Some(4)), Ok(4));
    assert_eq!(opened(&keeper, KEPT, &store.wrapped), Ok(*kept.expose()));
    move_on(&keeper, &mut store).unwrap();
    assert_eq!(opened(&keeper, KEPT, &store.wrapped), Ok(*kept.expose()));
}

/// What a certificate says of the call that was erased under epoch 1.
fn certificate(keeper: &Keeper) -> String {
    let claim = ErasureClaim { call: ERASED, erased: Timestamp::from_unix_millis(0), classes: vec![ErasedClass::Recording], epoch: 1 };
    match said(keeper.epoch(EpochRequest::Certify(claim))) {
        Ok(EpochReply::Certificate(certificate)) => certificate.statement,
        Ok(_) => panic!("no certificate"),
        Err(denial) => panic!("not certified: {denial}"),
    }
}

#[test]
fn the_tpm_of_the_machine_before_opens_an_old_image_until_it_is_seen_to_and_certificates_say_so() {
    const SAID: &str = "the TPM of the machine before";
    let mut bench = Bench::provisioned();
    let code = add_code(&bench);
    let (keeper, process) = serve(&bench);
    settle(&keeper, None).unwrap();
    let (erased, old) = keeper.new_dek(ERASED).unwrap();
    let (_, wrapped) = keeper.new_dek(KEPT).unwrap();
    let mut store = Store { number: 1, wrapped };
    drop((keeper, process));
    let image = copy(&bench.keys());

    // The board is away for repair.
    let first = std::mem::replace(&mut bench.tpm, Swtpm::start());
    let reseal = Task::Reseal { slot: None, conditions: Conditions { new_tpm: true, ..Conditions::default() }, with: None };
    let report = Operator::who_answers(&[&code]).asks(&bench, reseal).done();
    assert!(report.done.contains("the TPM of another machine still holds"), "{}", report.done);
    let (keeper, process) = serve(&bench);
    settle(&keeper, Some(1)).unwrap();
    move_on(&keeper, &mut store).unwrap();
    assert!(certificate(&keeper).contains(SAID));
    drop((keeper, process));
    let newest = copy(&bench.keys());

    // The limit that docs/KEYS.md states.
    let second = std::mem::replace(&mut bench.tpm, first);
    put_back(&image, &bench.keys());
    let (keeper, process) = serve(&bench);
    assert_eq!(opened(&keeper, ERASED, &old), Ok(*erased.expose()));
    drop((keeper, process));

    // As docs/KEYS.md says: the newest disk, there, once.
    put_back(&newest, &bench.keys());
    let report = Operator::who_answers(&[&code]).asks(&bench, Task::Verify { slot: 2 }).done();
    assert!(!report.done.contains("another machine"), "{}", report.done);
    let seen_to = copy(&bench.keys());
    put_back(&image, &bench.keys());
    bench.refusal(&bench.tpm.tcti());

    put_back(&seen_to, &bench.keys());
    bench.tpm = second;
    let (keeper, _process) = serve(&bench);
    settle(&keeper, Some(2)).unwrap();
    move_on(&keeper, &mut store).unwrap();
    assert!(!certificate(&keeper).contains(SAID));
}

#[test]
fn after_a_move_that_was_cut_off_a_check_opens_every_key_without_knowing_which_epoch_counts() {
    let bench = Bench::provisioned();
    let (keeper, process) = serve(&bench);
    settle(&keeper, None).unwrap();
    let (kept, before) = keeper.new_dek(KEPT).unwrap();
    begin(&keeper).unwrap();
    let after = rewrap(&keeper, KEPT, &before);
    drop((keeper, process));
    let (keeper, _process) = serve(&bench);
    for wrapped in [&before, &after] {
        assert_eq!(opened(&keeper, KEPT, wrapped), Ok(*kept.expose()));
    }
    assert!(keeper.new_dek(KEPT).is_err(), "nothing is made");
}

/// What a sheet opens in a key directory: the numbers of the epochs.
fn sheet_opens(directory: &Path, sheet: &str) -> Option<Vec<u32>> {
    let code = code::read(Sort::Code, &salama::base::secret::SecretText::new(sheet.to_owned())).unwrap();
    let slots = keyslots(directory).slots;
    let opened = slots.iter().find_map(|slot| match &slot.kind {
        Kind::Recovery(encrypted) => recovery::decrypt(encrypted, slot.id, &code).ok(),
        Kind::Tpm(_) | Kind::Shares(_) => None,
    });
    opened.map(|carried| carried.epochs.iter().map(|epoch| epoch.number()).collect())
}

#[test]
fn an_old_image_opens_by_its_own_sheet_and_no_more_once_that_was_replaced() {
    let bench = Bench::provisioned();
    let sheet = add_code(&bench);
    let image = copy(&bench.keys());
    let (keeper, process) = serve(&bench);
    settle(&keeper, None).unwrap();
    let (_, wrapped) = keeper.new_dek(KEPT).unwrap();
    let mut store = Store { number: 1, wrapped };
    move_on(&keeper, &mut store).unwrap();
    drop((keeper, process));
    assert_eq!(sheet_opens(&bench.keys(), &sheet), Some(vec![2]));
    assert_eq!(sheet_opens(image.path(), &sheet), Some(vec![1]), "the limit that docs/KEYS.md states");

    let mut operator = Operator::default();
    operator.asks(&bench, Task::Rotate { slot: None, with: None }).done();
    let new_sheet = operator.sheets.remove(0);
    assert_eq!(sheet_opens(&bench.keys(), &new_sheet), Some(vec![2]));
    assert_eq!(sheet_opens(image.path(), &new_sheet), None, "the old paper is destroyed, and the new one is of no use to the old image");
    assert_eq!(sheet_opens(&bench.keys(), &sheet), None);
}

#[test]
fn tpm2_tools_see_two_places_that_only_their_password_reads_and_writes() {
    let bench = Bench::provisioned();
    let first = keyslots(&bench.keys()).epoch.unwrap().first;
    for index in [first, first + 1] {
        let shown = bench.tpm.tool("tpm2_nvreadpublic", &[&format!("0x{index:x}")]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("friendly: authwrite|authread|no_da|written"), "{shown}");
        assert!(shown.contains("size: 36"), "{shown}");
    }
}
