//! What the keeper answers, refuses, counts and says.
//! Trusts: nothing.
//! Touches: memory.
//! Next: nobody.

use std::io;

use super::*;
use crate::base::clock::{ManualClock, Timestamp};
use crate::ipc::keeper::{EpochReply, UnwrapPurpose};
use crate::ipc::key_log::Series;
use crate::keeper::chain::tests::chain;
use crate::keeper::ledger::Number;
use crate::keeper::limits::Limit;
use crate::keeper::moving::memory::deks;

const NINE: Limit = Limit::common(9);
const LIMITS: Limits = Limits {
    new: NINE,
    job: NINE,
    read: Limit { per_minute: 9, per_hour: 12, ceiling_per_hour: 12 },
    handshake: NINE,
    certificate: NINE,
    grant: NINE,
    start: NINE,
    erasure: Limit::writes(2),
    certify: NINE,
    rewrap: NINE,
    settle: NINE,
    verify: NINE,
};
const CALL: CallId = CallId::from_bytes([1; 16]);

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn keeper<W: Write>(log: W) -> Keeper<ManualClock, W> {
    let keys = Keys::Daemon { deks: Box::new(deks()), tls: Box::new(EcKey::generate().unwrap().0), rollback: None };
    let clock = ManualClock::at(Timestamp::from_unix_millis(0));
    let journal = Journal::new(log, chain(1), Series::Daemon, Number::default(), clock.steady());
    Keeper::new(keys, None, &LIMITS, None, journal, clock)
}

#[test]
fn no_key_is_given_that_cannot_be_logged() {
    assert!(matches!(keeper(Full).reply(KeeperRequest::NewDek { call: CALL }), KeeperReply::Denied(KeeperDenial::Internal)));
}

#[test]
fn a_refused_try_costs_quota_too() {
    let mut keeper = keeper(io::sink());
    let mut guess = || {
        let wrapped = crate::ipc::keeper::WrappedDek(vec![0; 65]);
        keeper.reply(KeeperRequest::UnwrapDek { call: CALL, wrapped, purpose: UnwrapPurpose::Read })
    };
    for _ in 0..9 {
        assert!(matches!(guess(), KeeperReply::Denied(KeeperDenial::WrongKey)));
    }
    assert!(matches!(guess(), KeeperReply::Denied(KeeperDenial::RateLimited { seconds: 61 })));
}

#[test]
fn a_flood_leaves_one_incident_and_every_line_is_signed() {
    let mut log = Vec::new();
    let mut keeper = keeper(&mut log);
    for _ in 0..50 {
        keeper.reply(KeeperRequest::NewDek { call: CALL });
    }
    drop(keeper);
    let text = String::from_utf8(log).unwrap();
    assert_eq!(text.matches("\"event\":\"incident\"").count(), 1, "{text}");
    assert!(text.contains("\"reason\":\"limit_of_the_minute\",\"kind\":\"new_dek\",\"used_in_hour\":9"), "{text}");
    assert_eq!(text.matches("\"sig\":").count(), text.lines().count());
}

#[test]
fn a_core_cannot_wear_the_tpm_out() {
    let mut keeper = keeper(io::sink());
    for _ in 0..2 {
        assert!(matches!(keeper.reply(KeeperRequest::Epoch(EpochRequest::Begin)), KeeperReply::Epoch(EpochReply::At { .. })));
        // Begun again, or given up before anything was wrapped: no write.
        for request in [EpochRequest::Begin, EpochRequest::Abort, EpochRequest::Begin, EpochRequest::Rewrap(Vec::new())] {
            assert!(matches!(keeper.reply(KeeperRequest::Epoch(request)), KeeperReply::Epoch(_)));
        }
        keeper.reply(KeeperRequest::Epoch(EpochRequest::Abort));
    }
    let limited = KeeperDenial::RateLimited { seconds: 3660 };
    assert!(matches!(keeper.reply(KeeperRequest::Epoch(EpochRequest::Begin)), KeeperReply::Denied(denial) if denial == limited));
    keeper.quota.clock().advance(std::time::Duration::from_secs(3660));
    assert!(matches!(keeper.reply(KeeperRequest::Epoch(EpochRequest::Begin)), KeeperReply::Epoch(_)));
}

fn asks<W: Write>(keeper: &mut Keeper<ManualClock, W>, request: EpochRequest) -> Result<(), KeeperDenial> {
    match keeper.reply(KeeperRequest::Epoch(request)) {
        KeeperReply::Epoch(_) => Ok(()),
        KeeperReply::Denied(denial) => Err(denial),
        _ => panic!("neither done nor refused"),
    }
}

#[test]
fn no_limit_stops_a_move_that_was_begun_from_ending() {
    let mut keeper = keeper(io::sink());
    asks(&mut keeper, EpochRequest::Begin).unwrap();
    let refused = (0..50).filter_map(|_| asks(&mut keeper, EpochRequest::Committed { number: 9 }).err()).last();
    assert!(matches!(refused, Some(KeeperDenial::RateLimited { .. })), "{refused:?}");
    for _ in 0..50 {
        asks(&mut keeper, EpochRequest::Rewrap(Vec::new())).unwrap();
    }
    asks(&mut keeper, EpochRequest::Committed { number: 2 }).unwrap();
    let again = asks(&mut keeper, EpochRequest::Committed { number: 2 });
    assert!(matches!(again, Err(KeeperDenial::RateLimited { .. })), "it is over: {again:?}");
    let early = asks(&mut keeper, EpochRequest::Rewrap(Vec::new()));
    assert_eq!(early, Err(KeeperDenial::EpochOutOfOrder), "none is begun");
}

#[test]
fn requests_about_the_epoch_that_write_nothing_have_one_limit() {
    let mut log = Vec::new();
    let mut keeper = keeper(&mut log);
    asks(&mut keeper, EpochRequest::Begin).unwrap();
    let done = (0..500).filter(|_| asks(&mut keeper, EpochRequest::Begin).is_ok()).count();
    let others = [EpochRequest::Settle { store: Some(1) }, EpochRequest::Committed { number: 7 }];
    let limited = others.map(|request| matches!(asks(&mut keeper, request), Err(KeeperDenial::RateLimited { .. })));
    assert_eq!((done, limited), (8, [true; 2]));
    drop(keeper);
    assert!(String::from_utf8(log).unwrap().lines().count() < 9 + 70, "a flood is summed up");
}

#[test]
fn a_move_pays_for_its_count_and_leaves_the_starts_theirs() {
    let base = tempfile::tempdir().unwrap();
    for start in 0..12 {
        let (mut ledger, before) = crate::keeper::ledger::tests::open(base.path());
        ledger.begin([start; 16]).unwrap();
        let keys = Keys::Daemon { deks: Box::new(deks()), tls: Box::new(EcKey::generate().unwrap().0), rollback: None };
        let clock = ManualClock::at(Timestamp::from_unix_millis(0));
        let journal = Journal::new(io::sink(), chain(1), Series::Daemon, Number::default(), clock.steady());
        let mut keeper = Keeper::new(keys, None, &Limits::default(), None, journal, clock).remembering(ledger, &before);
        let counts = |keeper: &mut Keeper<ManualClock, _>| match keeper.reply(KeeperRequest::Count { from: 0 }) {
            KeeperReply::Denied(denial) => denial,
            _ => panic!("it has no counter"),
        };
        assert_eq!(counts(&mut keeper), KeeperDenial::CounterElsewhere, "start {start}");
        for number in (2..14).filter(|_| start == 0) {
            asks(&mut keeper, EpochRequest::Begin).unwrap();
            asks(&mut keeper, EpochRequest::Committed { number }).unwrap();
            assert_eq!(counts(&mut keeper), KeeperDenial::CounterElsewhere, "move {number}");
        }
        assert_eq!(keeper.quota.counters().incidents, 0);
        if start == 0 {
            // Each once.
            let limited = (0..4).map(|_| counts(&mut keeper)).filter(|denial| matches!(denial, KeeperDenial::RateLimited { .. }));
            assert_eq!(limited.count(), 1);
        }
    }
}

#[test]
fn what_was_opened_counts_after_the_keeper_was_killed() {
    let base = tempfile::tempdir().unwrap();
    let mut opened = 0;
    for start in 0..5 {
        let (mut ledger, before) = crate::keeper::ledger::tests::open(base.path());
        ledger.begin([start; 16]).unwrap();
        let mut keeper = keeper(io::sink()).remembering(ledger, &before);
        let KeeperReply::NewDek { wrapped, .. } = keeper.reply(KeeperRequest::NewDek { call: CALL }) else { panic!("no key") };
        for _ in 0..20 {
            let read = KeeperRequest::UnwrapDek { call: CALL, wrapped: wrapped.clone(), purpose: UnwrapPurpose::Read };
            opened += usize::from(matches!(keeper.reply(read), KeeperReply::Dek(_)));
        }
    }
    assert_eq!(opened, 12, "the hour's worth, once");
}
