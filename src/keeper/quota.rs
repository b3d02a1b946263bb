//! How often each kind of key use may happen, and how often it did.
//! Trusts: its clock. A clock that jumps forward fills the buckets once; one that jumps back fills nothing.
//! Touches: nothing.
//! Next: `serve` asks before each use.

use crate::base::clock::{Clock, Timestamp};
use crate::ipc::keeper::{KeeperCounters, UnwrapPurpose};

/// A kind of use that is limited and counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Making a DEK.
    NewDek,
    /// Opening a DEK.
    Unwrap(UnwrapPurpose),
    /// Signing a TLS handshake.
    SignTls,
    /// Issuing a client's certificate.
    Issue,
    /// Counting up in the TPM; it has a pace of its own.
    Count,
}

/// Uses allowed a minute; as many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Limits {
    /// New calls a minute.
    #[arg(long = "new-deks-per-minute", value_name = "N", default_value_t = 600)]
    pub new_deks: u32,
    /// Calls opened for transcription a minute.
    #[arg(long = "job-unwraps-per-minute", value_name = "N", default_value_t = 600)]
    pub unwraps_job: u32,
    /// Calls opened for readers a minute.
    #[arg(long = "read-unwraps-per-minute", value_name = "N", default_value_t = 600)]
    pub unwraps_read: u32,
    /// TLS handshakes a minute.
    #[arg(long = "handshakes-per-minute", value_name = "N", default_value_t = 6000)]
    pub tls_signatures: u32,
    /// Certificates a minute, at the console.
    #[arg(long = "certificates-per-minute", value_name = "N", default_value_t = 600)]
    pub certificates: u32,
}

/// One token is as many parts as a minute has milliseconds: each millisecond then adds `per_minute` parts, and nothing is rounded.
const TOKEN: u64 = 60_000;

/// A token bucket that holds a minute's worth.
#[derive(Debug)]
pub struct Bucket {
    per_minute: u64,
    level: u64,
    filled: Timestamp,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_minute: u32, now: Timestamp) -> Self {
        let per_minute = u64::from(per_minute);
        Self { per_minute, level: per_minute * TOKEN, filled: now }
    }

    /// Takes one token if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let millis = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let fresh = millis.saturating_mul(self.per_minute);
        self.level = self.level.saturating_add(fresh).min(self.per_minute * TOKEN);
        self.filled = now;
        match self.level.checked_sub(TOKEN) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

/// The buckets and the counters.
pub struct Quota<C> {
    clock: C,
    new_deks: Bucket,
    unwraps_job: Bucket,
    unwraps_read: Bucket,
    tls_signatures: Bucket,
    certificates: Bucket,
    counters: KeeperCounters,
    issued: u64,
    counts: u64,
}

impl<C: Clock> Quota<C> {
    /// Full buckets, nothing counted.
    pub fn new(limits: &Limits, clock: C) -> Self {
        let now = clock.now();
        Self {
            clock,
            new_deks: Bucket::new(limits.new_deks, now),
            unwraps_job: Bucket::new(limits.unwraps_job, now),
            unwraps_read: Bucket::new(limits.unwraps_read, now),
            tls_signatures: Bucket::new(limits.tls_signatures, now),
            certificates: Bucket::new(limits.certificates, now),
            counters: KeeperCounters::default(),
            issued: 0,
            counts: 0,
        }
    }

    /// The clock that it was made with.
    pub const fn clock(&self) -> &C {
        &self.clock
    }

    /// Whether one more use of this kind is allowed now. Refused tries of the use itself cost a token too.
    pub fn allows(&mut self, kind: Use) -> bool {
        let now = self.clock.now();
        match kind {
            Use::NewDek => self.new_deks.take(now),
            Use::Unwrap(UnwrapPurpose::Job) => self.unwraps_job.take(now),
            Use::Unwrap(UnwrapPurpose::Read) => self.unwraps_read.take(now),
            Use::SignTls => self.tls_signatures.take(now),
            Use::Issue => self.certificates.take(now),
            Use::Count => true,
        }
    }

    /// Counts a use that was done; how many of its kind were.
    pub const fn count_done(&mut self, kind: Use) -> u64 {
        let counter = match kind {
            Use::NewDek => &mut self.counters.new_deks,
            Use::Unwrap(UnwrapPurpose::Job) => &mut self.counters.unwraps_job,
            Use::Unwrap(UnwrapPurpose::Read) => &mut self.counters.unwraps_read,
            Use::SignTls => &mut self.counters.tls_signatures,
            Use::Issue => &mut self.issued,
            Use::Count => &mut self.counts,
        };
        *counter = counter.saturating_add(1);
        *counter
    }

    /// Counts a refusal; how many there were.
    pub const fn count_denied(&mut self) -> u64 {
        self.counters.denied = self.counters.denied.saturating_add(1);
        self.counters.denied
    }

    /// What was counted.
    pub const fn counters(&self) -> KeeperCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::base::clock::ManualClock;

    const START: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);
    const LIMITS: Limits = Limits { new_deks: 2, unwraps_job: 3, unwraps_read: 1, tls_signatures: 5, certificates: 1 };

    #[test]
    fn each_kind_of_use_has_its_own_limit() {
        let mut quota = Quota::new(&LIMITS, ManualClock::at(START));
        assert!(quota.allows(Use::Unwrap(UnwrapPurpose::Read)));
        assert!(!quota.allows(Use::Unwrap(UnwrapPurpose::Read)));
        assert!(quota.allows(Use::Unwrap(UnwrapPurpose::Job)));
        assert!(quota.allows(Use::NewDek));
    }

    #[test]
    fn a_spent_limit_comes_back_with_time_and_no_further_than_a_minutes_worth() {
        let mut quota = Quota::new(&LIMITS, ManualClock::at(START));
        assert!(quota.allows(Use::NewDek) && quota.allows(Use::NewDek) && !quota.allows(Use::NewDek));
        quota.clock().advance(Duration::from_secs(29));
        assert!(!quota.allows(Use::NewDek));
        quota.clock().advance(Duration::from_secs(1));
        assert!(quota.allows(Use::NewDek) && !quota.allows(Use::NewDek));
        quota.clock().advance(Duration::from_secs(3600));
        assert!(quota.allows(Use::NewDek) && quota.allows(Use::NewDek) && !quota.allows(Use::NewDek));
    }

    #[test]
    fn a_limit_of_nothing_allows_nothing() {
        let mut bucket = Bucket::new(0, START);
        assert!(!bucket.take(Timestamp::from_unix_millis(u64::MAX)));
    }

    proptest! {
        #[test]
        fn no_order_of_tries_gets_more_than_burst_plus_refill(per_minute in 1_u32..10_000, steps in prop::collection::vec(0_u64..5_000, 1..300)) {
            let mut bucket = Bucket::new(per_minute, START);
            let (mut at, mut taken) = (START.unix_millis(), 0_u64);
            for step in steps {
                at += step;
                taken += u64::from(bucket.take(Timestamp::from_unix_millis(at)));
            }
            let elapsed = at - START.unix_millis();
            prop_assert!(taken * 60_000 <= u64::from(per_minute) * (60_000 + elapsed));
        }
    }
}
