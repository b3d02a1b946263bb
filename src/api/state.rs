//! What every handler has at hand.
//! Trusts: `lifecycle` wired it.
//! Touches: nothing.
//! Next: the handlers.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::bursts::KeyBursts;
use super::desk::Desk;
use super::metrics::Metrics;
use super::vitals::Vitals;
use crate::admission::rate::{Allowance, Buckets};
use crate::authz::action::Class;
use crate::authz::permit::{Permit, Reach};
use crate::base::clock::Clock;
use crate::config::{Jobs, Limits, Listen, Rates};
use crate::identity::peer::{PeerIdentity, Role};
use crate::ipc::worker::LoadedModel;
use crate::job::spec::Scope;

/// Parts that `lifecycle` hands over.
pub struct ApiParts<D> {
    /// The desk of calls.
    pub desk: D,
    /// How the machine is.
    pub vitals: Arc<dyn Vitals>,
    /// The keeper, as far as grants go.
    pub bursts: Arc<dyn KeyBursts>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What the fork server loaded.
    pub models: Vec<LoadedModel>,
    /// Becomes true when the daemon stops; live streams then end.
    pub draining: watch::Receiver<bool>,
}

/// The state of the router; cheap to clone.
pub struct Api<D>(Arc<Inner<D>>);

struct Inner<D> {
    parts: ApiParts<D>,
    limits: Limits,
    max_audio: u64,
    slots: Arc<Semaphore>,
    rates: RateTable,
    metrics: Metrics,
}

impl<D> Clone for Api<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Desk> Api<D> {
    /// Wires the state.
    pub fn new(parts: ApiParts<D>, listen: &Listen, limits: &Limits, jobs: &Jobs) -> Self {
        Self(Arc::new(Inner {
            parts,
            limits: limits.clone(),
            max_audio: jobs.max_audio,
            slots: Arc::new(Semaphore::new(listen.max_requests)),
            rates: RateTable::new(limits.rates),
            metrics: Metrics::new(),
        }))
    }

    /// The desk of calls.
    pub fn desk(&self) -> &D {
        &self.0.parts.desk
    }

    /// How the machine is.
    pub fn vitals(&self) -> Arc<dyn Vitals> {
        Arc::clone(&self.0.parts.vitals)
    }

    /// The keeper, as far as grants go.
    pub(super) fn bursts(&self) -> Arc<dyn KeyBursts> {
        Arc::clone(&self.0.parts.bursts)
    }

    /// Time.
    pub fn clock(&self) -> &dyn Clock {
        self.0.parts.clock.as_ref()
    }

    /// What the fork server loaded.
    pub fn models(&self) -> &[LoadedModel] {
        &self.0.parts.models
    }

    /// Becomes true when the daemon stops.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.0.parts.draining.clone()
    }

    /// Time limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Largest recording, bytes.
    pub fn max_audio(&self) -> u64 {
        self.0.max_audio
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.slots)
    }

    /// Takes one token of this peer in this class.
    pub(super) fn rate(&self, peer: &PeerIdentity, class: Class) -> Allowance {
        self.0.rates.of(class).take(&(peer.role(), peer.name().to_owned()))
    }
}

/// By role and name, so that a second certificate of the same person gives no second allowance.
type PeerBuckets = Buckets<(Role, String)>;

struct RateTable {
    upload: PeerBuckets,
    read: PeerBuckets,
    change: PeerBuckets,
    text: PeerBuckets,
    status: PeerBuckets,
}

impl RateTable {
    fn new(rates: Rates) -> Self {
        let buckets = |rate: NonZeroU32| Buckets::new(rate);
        Self {
            upload: buckets(rates.uploads),
            read: buckets(rates.reads),
            change: buckets(rates.changes),
            text: buckets(rates.texts),
            status: buckets(rates.status),
        }
    }

    const fn of(&self, class: Class) -> &PeerBuckets {
        match class {
            Class::Upload => &self.upload,
            Class::Read => &self.read,
            Class::Change => &self.change,
            Class::Text => &self.text,
            Class::Status => &self.status,
        }
    }
}

/// The calls that a permit covers, in the desk's words.
pub(super) fn scope<A>(permit: &Permit<A>) -> Scope {
    match permit.reach() {
        Reach::Own => Scope::OwnedBy(permit.peer().owner()),
        Reach::All => Scope::All,
    }
}
