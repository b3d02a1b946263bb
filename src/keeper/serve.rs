//! The life of a request to the keeper: message > kind allowed here? > quota > do > count > log > reply.
//! Trusts: nothing that comes over the channel; a taken-over core is expected.
//! Touches: its channel, the journal, the clock.
//! Next: the core's `keys`, which gets the reply.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use rustls_pki_types::CertificateDer;

use crate::base::clock::Clock;
use crate::base::ids::CallId;
use crate::base::secret::{Secret, SecretInTransit};
use crate::ipc::PROTOCOL_VERSION;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::keeper::{Counted, Counter, EpochRequest, KeeperDenial, KeeperReply, KeeperRequest, Standing};
use crate::sandbox::process::Confined;

use super::ca::{Authority, Client, IssueError};
use super::grant::Grants;
use super::held::Held;
use super::hierarchy::KEY_BYTES;
use super::journal::{Incident, Journal, KeyUse};
use super::ledger::{Before, Ledger, LedgerError, Used};
use super::limits::Limits;
use super::moving::Deks;
use super::quota::{Quota, Use};
use super::rollback::Rollback;
use super::signer::{EcKey, is_server_certificate_verify};

/// What the keeper of one mode answers with: nothing of the other's. The daemon's keeps the root key besides, for the recovery slots.
pub enum Keys {
    /// Beside the daemon: opens calls, signs handshakes, cannot issue.
    Daemon {
        /// Over the record KEK of the erasure epoch.
        deks: Box<Deks>,
        /// The TLS server's key.
        tls: Box<EcKey>,
        /// The counter against older copies of the store.
        rollback: Option<Box<Rollback>>,
    },
    /// At the console: issues certificates, cannot open a call or sign a handshake.
    Console {
        /// The CA with its private key.
        authority: Box<Authority>,
    },
}

/// What the keeper says first.
pub struct Greeting {
    /// The server's chain, leaf first.
    pub server_chain: Vec<CertificateDer<'static>>,
    /// The CA.
    pub client_ca: CertificateDer<'static>,
    /// The index key; at the console, a random key that is good for nothing.
    pub index_key: Secret<KEY_BYTES>,
    /// The counter against older copies of the store; at the console, nothing.
    pub counter: Counter,
    /// What it says of itself.
    pub standing: Standing,
}

/// The answering end.
pub struct Keeper<C, W> {
    keys: Keys,
    held: Option<Rc<RefCell<Held>>>,
    pub(super) quota: Quota<C>,
    pub(super) journal: Journal<W>,
    /// At the console, nobody grants anything.
    pub(super) grants: Option<Grants>,
    /// At the console, where nothing is opened, nothing is remembered.
    ledger: Option<Ledger>,
}

impl<C: Clock, W: Write> Keeper<C, W> {
    /// Ready to answer; the journal takes the lines of the key uses.
    pub fn new(
        keys: Keys,
        held: Option<Rc<RefCell<Held>>>,
        limits: &Limits,
        grants: Option<Grants>,
        journal: Journal<W>,
        clock: C,
    ) -> Self {
        Self { keys, held, quota: Quota::new(limits, clock), journal, grants, ledger: None }
    }

    /// Goes on with what was used before this start, and puts down what will be.
    #[must_use]
    pub fn remembering(mut self, ledger: Ledger, before: &Before) -> Self {
        self.quota.remember(before, ledger.ahead());
        if *before == Before::Lost {
            self.quota.count_incident();
            // As with every incident that refuses nothing: a log that takes nothing shows at the first use.
            let _ = self.journal.incident(Incident::UsesLost, None, self.quota.clock().now());
        }
        self.ledger = Some(ledger);
        self
    }

    /// Greets, then answers until the other side closes. Only once this process is confined.
    ///
    /// # Errors
    /// [`ChannelError`] when the other side breaks the protocol or is gone in mid-reply.
    pub fn answer(mut self, confined: &Confined, channel: &Channel, greeting: Greeting) -> Result<(), ChannelError> {
        // A log that takes nothing shows at the first use of a key, which is then refused.
        let _ = self.journal.confined(confined.report(), self.quota.clock().now());
        channel.send(&KeeperReply::Ready {
            version: PROTOCOL_VERSION,
            server_chain: greeting.server_chain.iter().map(|certificate| certificate.to_vec()).collect(),
            client_ca: greeting.client_ca.to_vec(),
            index_key: SecretInTransit(greeting.index_key),
            counter: greeting.counter,
            standing: greeting.standing,
        })?;
        let end = self.answer_all(channel);
        let now = self.quota.clock().now();
        // There is nobody left to refuse anything to.
        if end.is_err() {
            let _ = self.journal.incident(Incident::Protocol, None, now);
        }
        let _ = self.journal.ended(now);
        let used = self.quota.used_in_the_end();
        let _ = self.put_down(used);
        end
    }

    fn answer_all(&mut self, channel: &Channel) -> Result<(), ChannelError> {
        while let Some(request) = channel.recv()? {
            channel.send(&self.reply(request))?;
        }
        Ok(())
    }

    /// One request's life.
    pub fn reply(&mut self, request: KeeperRequest) -> KeeperReply {
        let request = match request {
            KeeperRequest::Epoch(request) => return self.epoch(request),
            other => other,
        };
        let Some(kind) = kind_of(&request) else { return KeeperReply::Counters(self.quota.counters()) };
        let call = call_of(&request);
        // The beginning of a move has paid for its count.
        let paid = kind == Use::Count && self.takes_paid_count();
        let allowed = self.allowed_here(kind).and_then(|()| if paid { Ok(()) } else { self.within_quota(kind) });
        let done = allowed.and_then(|()| self.perform(request));
        let used = self.count(kind, call, done.as_ref().err().copied());
        let clock = self.quota.clock();
        match self.journal.record(used, clock.now(), clock.steady()) {
            Ok(()) => done.unwrap_or_else(KeeperReply::Denied),
            Err(_) => KeeperReply::Denied(KeeperDenial::Internal),
        }
    }

    /// As [`Self::reply`]. What ends a move is never refused for a limit, nor what a move must ask in between: it has paid at its beginning.
    fn epoch(&mut self, request: EpochRequest) -> KeeperReply {
        if let Keys::Daemon { deks, .. } = &self.keys
            && deks.is_paid(&request)
        {
            return self.move_on(request);
        }
        let kind = kind_of_epoch(&request);
        let wears = kind == Use::Begin && matches!(&self.keys, Keys::Daemon { deks, .. } if deks.wears());
        // What writes nothing, or fails before it does, has one limit for all of it.
        let common = if kind == Use::Begin { Use::Settle } else { kind };
        let mut within = self.allowed_here(kind).and_then(|()| self.within_quota(common));
        if wears {
            within = within.and_then(|()| self.within_quota(kind));
        }
        if let Err(denial) = within {
            let used = self.count(kind, None, Some(denial));
            let clock = self.quota.clock();
            let _ = self.journal.record(used, clock.now(), clock.steady());
            return KeeperReply::Denied(denial);
        }
        let written = self.written();
        let reply = self.move_on(request);
        if wears && self.written() == written {
            self.quota.give_back(kind);
        }
        reply
    }

    fn takes_paid_count(&mut self) -> bool {
        if let Keys::Daemon { deks, .. } = &mut self.keys { deks.takes_paid_count() } else { false }
    }

    /// How often epochs were written to the TPM.
    fn written(&self) -> u64 {
        if let Keys::Daemon { deks, .. } = &self.keys { deks.written() } else { 0 }
    }

    fn move_on(&mut self, request: EpochRequest) -> KeeperReply {
        let Keys::Daemon { deks, .. } = &mut self.keys else { return KeeperReply::Denied(KeeperDenial::WrongKey) };
        let now = self.quota.clock().now();
        let (said, done) = deks.epoch(request, now);
        match self.journal.epoch(&said, now, self.quota.clock().steady()) {
            Ok(()) => done.map_or_else(KeeperReply::Denied, KeeperReply::Epoch),
            Err(_) => KeeperReply::Denied(KeeperDenial::Internal),
        }
    }

    fn allowed_here(&self, kind: Use) -> Result<(), KeeperDenial> {
        match (&self.keys, kind) {
            (
                Keys::Daemon { .. },
                Use::NewDek
                | Use::Unwrap(_)
                | Use::SignTls
                | Use::Grant
                | Use::Count
                | Use::Begin
                | Use::Certify
                | Use::Rewrap
                | Use::Settle
                | Use::Verify,
            )
            | (Keys::Console { .. }, Use::Issue) => Ok(()),
            (Keys::Daemon { .. }, Use::Issue) => Err(KeeperDenial::ConsoleOnly),
            (Keys::Console { .. }, Use::NewDek | Use::Unwrap(_) | Use::Verify | Use::Begin | Use::Certify | Use::Rewrap | Use::Settle) => {
                Err(KeeperDenial::WrongKey)
            }
            (Keys::Console { .. }, Use::Count) => Err(KeeperDenial::CounterElsewhere),
            (Keys::Console { .. }, Use::SignTls) => Err(KeeperDenial::NotSignable),
            (Keys::Console { .. }, Use::Grant) => Err(KeeperDenial::BadRequest),
        }
    }

    /// Nothing is used that the next start would not know of.
    fn put_down(&mut self, used: Vec<Used>) -> Result<(), LedgerError> {
        let steady = self.quota.clock().steady();
        self.ledger.as_mut().map_or(Ok(()), |ledger| ledger.save(self.journal.lines(), used, steady))
    }

    fn within_quota(&mut self, kind: Use) -> Result<(), KeeperDenial> {
        let Err(exceeded) = self.quota.take(kind) else {
            if let Some(used) = self.quota.passed_half(kind) {
                // The use's own line follows; without that nothing is given.
                let _ = self.journal.incident(Incident::Half(used), Some(kind), self.quota.clock().now());
            }
            let Some(used) = self.quota.must_put_down(kind) else { return Ok(()) };
            return self.put_down(used).map_err(|_| {
                self.quota.not_put_down(kind);
                KeeperDenial::Internal
            });
        };
        if exceeded.fresh {
            // Refused either way.
            let _ = self.journal.incident(Incident::Limit(exceeded.bound, exceeded.used), Some(kind), self.quota.clock().now());
        }
        let seconds = u32::try_from(exceeded.wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        Err(KeeperDenial::RateLimited { seconds })
    }

    fn perform(&mut self, request: KeeperRequest) -> Result<KeeperReply, KeeperDenial> {
        match (&mut self.keys, request) {
            (_, KeeperRequest::Burst(signed)) => self.burst(&signed),
            (Keys::Daemon { deks, .. }, KeeperRequest::NewDek { call }) => {
                let (dek, wrapped) = deks.new_dek(call).map_err(|_| KeeperDenial::Internal)?;
                Ok(KeeperReply::NewDek { dek: SecretInTransit(dek), wrapped })
            }
            (Keys::Daemon { deks, .. }, KeeperRequest::UnwrapDek { call, wrapped, .. }) => {
                let dek = deks.open_dek(call, &wrapped).map_err(|_| KeeperDenial::WrongKey)?;
                Ok(KeeperReply::Dek(SecretInTransit(dek)))
            }
            (Keys::Daemon { deks, .. }, KeeperRequest::VerifyDek { call, wrapped }) => {
                deks.open_dek(call, &wrapped).map_err(|_| KeeperDenial::WrongKey).map(|_| KeeperReply::Verified)
            }
            (Keys::Daemon { tls, .. }, KeeperRequest::SignTls { content }) if is_server_certificate_verify(&content) => {
                tls.sign(&content).map(KeeperReply::Signature).map_err(|_| KeeperDenial::Internal)
            }
            (_, KeeperRequest::SignTls { .. }) => Err(KeeperDenial::NotSignable),
            (Keys::Daemon { rollback, .. }, KeeperRequest::Count { from }) => {
                let (Some(rollback), Some(held)) = (rollback, &self.held) else { return Err(KeeperDenial::CounterElsewhere) };
                let mut held = held.try_borrow_mut().map_err(|_| KeeperDenial::Internal)?;
                let at = rollback.count(&mut held.tpm, from)?;
                Ok(KeeperReply::Counted(Counted { at, keys: held.generation }))
            }
            (Keys::Console { .. }, KeeperRequest::Count { .. }) => Err(KeeperDenial::CounterElsewhere),
            (Keys::Console { authority }, KeeperRequest::IssueCertificate { csr_der, role, name, valid_days }) => {
                let client = Client { role: &role, name: &name };
                let chain =
                    authority.issue_client(&csr_der, client, valid_days, self.quota.clock().now()).map_err(|error| denial_of(&error))?;
                Ok(KeeperReply::Certificate(chain.iter().map(|certificate| certificate.to_vec()).collect()))
            }
            (Keys::Daemon { .. }, KeeperRequest::IssueCertificate { .. }) => Err(KeeperDenial::ConsoleOnly),
            (Keys::Console { .. }, KeeperRequest::NewDek { .. } | KeeperRequest::UnwrapDek { .. } | KeeperRequest::VerifyDek { .. }) => {
                Err(KeeperDenial::WrongKey)
            }
            (_, KeeperRequest::Counters | KeeperRequest::Epoch(_)) => Ok(KeeperReply::Counters(self.quota.counters())),
        }
    }

    fn count(&mut self, kind: Use, call: Option<CallId>, denied: Option<KeeperDenial>) -> KeyUse {
        let count = match denied {
            Some(_) => self.quota.count_denied(),
            None => self.quota.count_done(kind),
        };
        KeyUse { kind, call, denied, count }
    }
}

const fn kind_of(request: &KeeperRequest) -> Option<Use> {
    match request {
        KeeperRequest::NewDek { .. } => Some(Use::NewDek),
        KeeperRequest::UnwrapDek { purpose, .. } => Some(Use::Unwrap(*purpose)),
        KeeperRequest::VerifyDek { .. } => Some(Use::Verify),
        KeeperRequest::SignTls { .. } => Some(Use::SignTls),
        KeeperRequest::IssueCertificate { .. } => Some(Use::Issue),
        KeeperRequest::Count { .. } => Some(Use::Count),
        KeeperRequest::Burst(_) => Some(Use::Grant),
        KeeperRequest::Counters | KeeperRequest::Epoch(_) => None,
    }
}

const fn kind_of_epoch(request: &EpochRequest) -> Use {
    match request {
        EpochRequest::Begin => Use::Begin,
        EpochRequest::Certify(_) => Use::Certify,
        EpochRequest::Rewrap(_) => Use::Rewrap,
        EpochRequest::Settle { .. } | EpochRequest::Committed { .. } | EpochRequest::Abort => Use::Settle,
    }
}

const fn call_of(request: &KeeperRequest) -> Option<CallId> {
    match request {
        KeeperRequest::NewDek { call } | KeeperRequest::UnwrapDek { call, .. } | KeeperRequest::VerifyDek { call, .. } => Some(*call),
        KeeperRequest::SignTls { .. }
        | KeeperRequest::IssueCertificate { .. }
        | KeeperRequest::Counters
        | KeeperRequest::Count { .. }
        | KeeperRequest::Burst(_)
        | KeeperRequest::Epoch(_) => None,
    }
}

const fn denial_of(error: &IssueError) -> KeeperDenial {
    match error {
        IssueError::BoxName | IssueError::Role | IssueError::Name | IssueError::Days | IssueError::ServerName | IssueError::Request => {
            KeeperDenial::BadRequest
        }
        IssueError::Certificate(_) | IssueError::Sign(_) | IssueError::Random | IssueError::Clock => KeeperDenial::Internal,
    }
}

#[cfg(test)]
mod tests;
