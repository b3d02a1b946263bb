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
use crate::ipc::keeper::{Counter, EpochRequest, KeeperDenial, KeeperReply, KeeperRequest};
use crate::sandbox::process::Confined;

use super::ca::{Authority, Client, IssueError};
use super::held::Held;
use super::hierarchy::KEY_BYTES;
use super::journal::{Journal, KeyUse};
use super::moving::Deks;
use super::quota::{Limits, Quota, Use};
use super::rollback::Rollback;
use super::signer::{EcKey, is_server_certificate_verify};

/// What the keeper of one mode holds: nothing of the other's.
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
}

/// The answering end.
pub struct Keeper<C, W> {
    keys: Keys,
    held: Option<Rc<RefCell<Held>>>,
    quota: Quota<C>,
    journal: Journal<W>,
}

impl<C: Clock, W: Write> Keeper<C, W> {
    /// Ready to answer; `log` takes the lines of the key uses.
    pub fn new(keys: Keys, held: Option<Rc<RefCell<Held>>>, limits: &Limits, clock: C, log: W) -> Self {
        let journal = Journal::new(log, clock.now());
        Self { keys, held, quota: Quota::new(limits, clock), journal }
    }

    /// Greets, then answers until the other side closes. Only once this process is confined.
    ///
    /// # Errors
    /// [`ChannelError`] when the other side breaks the protocol or is gone in mid-reply.
    pub fn answer(mut self, confined: &Confined, channel: &Channel, greeting: Greeting) -> Result<(), ChannelError> {
        // A log that takes nothing shows at the first use of a key, which is then refused.
        let _ = self.journal.confined(confined.report());
        channel.send(&KeeperReply::Ready {
            version: PROTOCOL_VERSION,
            server_chain: greeting.server_chain.iter().map(|certificate| certificate.to_vec()).collect(),
            client_ca: greeting.client_ca.to_vec(),
            index_key: SecretInTransit(greeting.index_key),
            counter: greeting.counter,
        })?;
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
        let done = self.allowed_here(kind).and_then(|()| self.within_quota(kind)).and_then(|()| self.perform(request));
        let used = self.count(kind, call, done.as_ref().err().copied());
        match self.journal.record(used, self.quota.clock().now()) {
            Ok(()) => done.unwrap_or_else(KeeperReply::Denied),
            Err(_) => KeeperReply::Denied(KeeperDenial::Internal),
        }
    }

    /// As [`Self::reply`]; limited by what has gone before it, not by a rate of its own.
    fn epoch(&mut self, request: EpochRequest) -> KeeperReply {
        let Keys::Daemon { deks, .. } = &mut self.keys else { return KeeperReply::Denied(KeeperDenial::WrongKey) };
        let now = self.quota.clock().now();
        let (said, done) = deks.epoch(request, now);
        match self.journal.epoch(&said, now) {
            Ok(()) => done.map_or_else(KeeperReply::Denied, KeeperReply::Epoch),
            Err(_) => KeeperReply::Denied(KeeperDenial::Internal),
        }
    }

    fn allowed_here(&self, kind: Use) -> Result<(), KeeperDenial> {
        match (&self.keys, kind) {
            (Keys::Daemon { .. }, Use::NewDek | Use::Unwrap(_) | Use::SignTls | Use::Count) | (Keys::Console { .. }, Use::Issue) => Ok(()),
            (Keys::Daemon { .. }, Use::Issue) => Err(KeeperDenial::ConsoleOnly),
            (Keys::Console { .. }, Use::NewDek | Use::Unwrap(_)) => Err(KeeperDenial::WrongKey),
            (Keys::Console { .. }, Use::Count) => Err(KeeperDenial::CounterElsewhere),
            (Keys::Console { .. }, Use::SignTls) => Err(KeeperDenial::NotSignable),
        }
    }

    fn within_quota(&mut self, kind: Use) -> Result<(), KeeperDenial> {
        if self.quota.allows(kind) { Ok(()) } else { Err(KeeperDenial::RateLimited) }
    }

    fn perform(&mut self, request: KeeperRequest) -> Result<KeeperReply, KeeperDenial> {
        match (&mut self.keys, request) {
            (Keys::Daemon { deks, .. }, KeeperRequest::NewDek { call }) => {
                let (dek, wrapped) = deks.new_dek(call).map_err(|_| KeeperDenial::Internal)?;
                Ok(KeeperReply::NewDek { dek: SecretInTransit(dek), wrapped })
            }
            (Keys::Daemon { deks, .. }, KeeperRequest::UnwrapDek { call, wrapped, .. }) => {
                let dek = deks.open_dek(call, &wrapped).map_err(|_| KeeperDenial::WrongKey)?;
                Ok(KeeperReply::Dek(SecretInTransit(dek)))
            }
            (Keys::Daemon { tls, .. }, KeeperRequest::SignTls { content }) if is_server_certificate_verify(&content) => {
                tls.sign(&content).map(KeeperReply::Signature).map_err(|_| KeeperDenial::Internal)
            }
            (_, KeeperRequest::SignTls { .. }) => Err(KeeperDenial::NotSignable),
            (Keys::Daemon { rollback, .. }, KeeperRequest::Count { from }) => {
                let (Some(rollback), Some(held)) = (rollback, &self.held) else { return Err(KeeperDenial::CounterElsewhere) };
                let mut held = held.try_borrow_mut().map_err(|_| KeeperDenial::Internal)?;
                rollback.count(&mut held.tpm, from, self.quota.clock().now()).map(KeeperReply::Counted)
            }
            (Keys::Console { .. }, KeeperRequest::Count { .. }) => Err(KeeperDenial::CounterElsewhere),
            (Keys::Console { authority }, KeeperRequest::IssueCertificate { csr_der, role, name, valid_days }) => {
                let client = Client { role: &role, name: &name };
                let chain =
                    authority.issue_client(&csr_der, client, valid_days, self.quota.clock().now()).map_err(|error| denial_of(&error))?;
                Ok(KeeperReply::Certificate(chain.iter().map(|certificate| certificate.to_vec()).collect()))
            }
            (Keys::Daemon { .. }, KeeperRequest::IssueCertificate { .. }) => Err(KeeperDenial::ConsoleOnly),
            (Keys::Console { .. }, KeeperRequest::NewDek { .. } | KeeperRequest::UnwrapDek { .. }) => Err(KeeperDenial::WrongKey),
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
        KeeperRequest::SignTls { .. } => Some(Use::SignTls),
        KeeperRequest::IssueCertificate { .. } => Some(Use::Issue),
        KeeperRequest::Count { .. } => Some(Use::Count),
        KeeperRequest::Counters | KeeperRequest::Epoch(_) => None,
    }
}

const fn call_of(request: &KeeperRequest) -> Option<CallId> {
    match request {
        KeeperRequest::NewDek { call } | KeeperRequest::UnwrapDek { call, .. } => Some(*call),
        KeeperRequest::SignTls { .. }
        | KeeperRequest::IssueCertificate { .. }
        | KeeperRequest::Counters
        | KeeperRequest::Count { .. }
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
mod tests {
    use std::io;

    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use crate::ipc::keeper::UnwrapPurpose;
    use crate::keeper::moving::memory::deks;

    const LIMITS: Limits = Limits { new_deks: 9, unwraps_job: 9, unwraps_read: 9, tls_signatures: 9, certificates: 9 };
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
        Keeper::new(keys, None, &LIMITS, ManualClock::at(Timestamp::from_unix_millis(0)), log)
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
        assert!(matches!(guess(), KeeperReply::Denied(KeeperDenial::RateLimited)));
    }
}
