//! The core's side of the key keeper: handles that wrap, unwrap and sign. Never the bytes of a long-term key but the index key's.
//! Trusts: the keeper; it was started from beside this program before any stranger was served.
//! Touches: the channel to the keeper, one request at a time.
//! Next: `record` takes DEKs, `connection` a signing key for TLS ([`tls`]), the operator's `salama enrol` certificates ([`console`]).

pub mod console;
pub mod tls;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::base::exit::Exit;
use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::ipc::PROTOCOL_VERSION;
use crate::ipc::burst::SignedGrant;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::keeper::{
    Counted, Counter, DEK_BYTES, EpochReply, EpochRequest, KeeperCounters, KeeperDenial, KeeperReply, KeeperRequest, Standing,
    UnwrapPurpose, WrappedDek,
};

/// How long the keeper may take to open the root key: a discrete TPM needs up to a second a command, and may be busy after power-on.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long one answer may take; they take well under a millisecond.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long one may take that writes the TPM's memory: a dozen commands, and a second for each.
const TPM_LIMIT: Duration = Duration::from_secs(60);

/// What the keeper says first.
pub struct KeeperGreeting {
    /// The TLS server's chain, leaf first.
    pub server_chain: Vec<CertificateDer<'static>>,
    /// The CA that client certificates must come from.
    pub client_ca: CertificateDer<'static>,
    /// Key of keyed hashes and sealed record headers.
    pub index_key: Secret<DEK_BYTES>,
    /// Against older copies of the store.
    pub counter: Counter,
    /// What the keeper says of itself.
    pub standing: Standing,
}

/// The handle to the keeper. Clones share one channel; a caller waits for its turn, at most some milliseconds.
#[derive(Clone)]
pub struct Keeper(Arc<Mutex<Line>>);

struct Line {
    channel: Channel,
    /// After a failure, replies could be matched with the wrong requests: the line stays shut.
    lost: bool,
    limits: Limits,
}

/// How long answers may take.
#[derive(Clone, Copy)]
struct Limits {
    answer: Duration,
    /// Of what speaks with the TPM.
    tpm: Duration,
}

impl Limits {
    const fn of(self, request: &KeeperRequest) -> Duration {
        match request {
            KeeperRequest::Epoch(EpochRequest::Settle { .. } | EpochRequest::Begin | EpochRequest::Committed { .. })
            | KeeperRequest::Count { .. } => self.tpm,
            _ => self.answer,
        }
    }
}

impl Keeper {
    /// Waits for the greeting of a keeper that was just started at the other end of `channel`.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] with the keeper's own words when the TPM or the key directory refused; [`KeeperError::Version`] when the
    /// two programs do not belong together; [`KeeperError::Gone`] when it ended or hangs.
    pub fn connect(channel: Channel) -> Result<(Self, KeeperGreeting), KeeperError> {
        Self::connect_within(channel, START_LIMIT, Limits { answer: ANSWER_LIMIT, tpm: TPM_LIMIT })
    }

    fn connect_within(channel: Channel, start: Duration, limits: Limits) -> Result<(Self, KeeperGreeting), KeeperError> {
        channel.set_receive_timeout(Some(start)).map_err(|source| KeeperError::Gone(Some(ChannelError::Socket(source))))?;
        let greeting = match channel.recv().map_err(|error| KeeperError::Gone(Some(error)))? {
            Some(KeeperReply::Ready { version: PROTOCOL_VERSION, server_chain, client_ca, index_key, counter, standing }) => {
                KeeperGreeting {
                    server_chain: server_chain.into_iter().map(CertificateDer::from).collect(),
                    client_ca: CertificateDer::from(client_ca),
                    index_key: index_key.0,
                    counter,
                    standing,
                }
            }
            Some(KeeperReply::Ready { version, .. }) => return Err(KeeperError::Version { keeper: version }),
            Some(KeeperReply::Refused { reason, exit }) => return Err(KeeperError::Refused { reason, exit: Exit::of_code(exit) }),
            Some(_) => return Err(KeeperError::OutOfOrder),
            None => return Err(KeeperError::Gone(None)),
        };
        Ok((Self(Arc::new(Mutex::new(Line { channel, lost: false, limits }))), greeting))
    }

    /// A DEK for a new call, open and wrapped.
    ///
    /// # Errors
    /// [`KeeperError`]; `Denied(RateLimited)` when too many calls are made.
    pub fn new_dek(&self, call: CallId) -> Result<(Secret<DEK_BYTES>, WrappedDek), KeeperError> {
        match self.ask(&KeeperRequest::NewDek { call })? {
            KeeperReply::NewDek { dek, wrapped } => Ok((dek.0, wrapped)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Opens a call's DEK.
    ///
    /// # Errors
    /// [`KeeperError`]; `Denied(WrongKey)` when the wrapped key is damaged or another call's, `Denied(RateLimited)` when too many are opened.
    pub fn unwrap_dek(&self, call: CallId, wrapped: &WrappedDek, purpose: UnwrapPurpose) -> Result<Secret<DEK_BYTES>, KeeperError> {
        match self.ask(&KeeperRequest::UnwrapDek { call, wrapped: wrapped.clone(), purpose })? {
            KeeperReply::Dek(dek) => Ok(dek.0),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Whether a call's key would open, without having it opened.
    ///
    /// # Errors
    /// As [`Self::unwrap_dek`].
    pub fn verify_dek(&self, call: CallId, wrapped: &WrappedDek) -> Result<(), KeeperError> {
        match self.ask(&KeeperRequest::VerifyDek { call, wrapped: wrapped.clone() })? {
            KeeperReply::Verified => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Signs a TLS 1.3 server `CertificateVerify` content (RFC 8446, 4.4.3); ASN.1 DER signature by ECDSA P-256 with SHA-256.
    ///
    /// # Errors
    /// [`KeeperError`]; `Denied(NotSignable)` for any other bytes.
    pub fn sign_tls(&self, content: &[u8]) -> Result<Vec<u8>, KeeperError> {
        match self.ask(&KeeperRequest::SignTls { content: content.to_vec() })? {
            KeeperReply::Signature(signature) => Ok(signature),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Counts the TPM's counter up by one, from where it is believed to be; to what.
    ///
    /// # Errors
    /// [`KeeperError`]; it may have counted all the same.
    pub fn count(&self, from: u64) -> Result<Counted, KeeperError> {
        match self.ask(&KeeperRequest::Count { from })? {
            KeeperReply::Counted(counted) => Ok(counted),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Asks about the erasure epoch.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn epoch(&self, request: EpochRequest) -> Result<EpochReply, KeeperError> {
        match self.ask(&KeeperRequest::Epoch(request))? {
            KeeperReply::Epoch(reply) => Ok(reply),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Relays a person's signed grant.
    ///
    /// # Errors
    /// [`KeeperError`]; `Denied(Grant)` when it does not count, `Denied(RateLimited)` when too many were relayed.
    pub fn burst(&self, grant: SignedGrant) -> Result<(), KeeperError> {
        match self.ask(&KeeperRequest::Burst(grant))? {
            KeeperReply::BurstTaken => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Uses of keys since the keeper's start.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub fn counters(&self) -> Result<KeeperCounters, KeeperError> {
        match self.ask(&KeeperRequest::Counters)? {
            KeeperReply::Counters(counters) => Ok(counters),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Whether the keeper has been found dead or hanging. It never comes back; the daemon has to end and be started anew.
    pub fn is_lost(&self) -> bool {
        self.line().lost
    }

    fn issue(&self, request: &KeeperRequest) -> Result<Vec<CertificateDer<'static>>, KeeperError> {
        match self.ask(request)? {
            KeeperReply::Certificate(chain) => Ok(chain.into_iter().map(CertificateDer::from).collect()),
            other => Err(self.unexpected(&other)),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A caller that panicked in mid-exchange has set `lost` first, so the state behind a poisoned lock is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, one reply.
    fn ask(&self, request: &KeeperRequest) -> Result<KeeperReply, KeeperError> {
        let mut line = self.line();
        if line.lost {
            return Err(KeeperError::Gone(None));
        }
        line.lost = true;
        let limited = line.channel.set_receive_timeout(Some(line.limits.of(request))).map_err(ChannelError::Socket);
        let answer = limited.and_then(|()| line.channel.send(request)).and_then(|()| line.channel.recv());
        match answer {
            Ok(Some(KeeperReply::Denied(denial))) => {
                line.lost = false;
                Err(KeeperError::Denied(denial))
            }
            Ok(Some(reply)) => {
                line.lost = false;
                Ok(reply)
            }
            Ok(None) => Err(KeeperError::Gone(None)),
            Err(error) => Err(KeeperError::Gone(Some(error))),
        }
    }

    fn unexpected(&self, _: &KeeperReply) -> KeeperError {
        self.line().lost = true;
        KeeperError::OutOfOrder
    }
}

/// Why the keeper gave no key.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It refused this request; the next may succeed.
    #[error("the key keeper refused")]
    Denied(#[source] KeeperDenial),
    /// It could not start.
    #[error("the key keeper could not open the keys: {reason}")]
    Refused {
        /// The keeper's words for the operator.
        reason: String,
        /// Its exit code: whoever started it had better end with the same.
        exit: Exit,
    },
    /// It ended, or does not answer.
    #[error("the key keeper has ended or does not answer; the daemon must be restarted, see the journal for the reason")]
    Gone(#[source] Option<ChannelError>),
    /// The two programs are of different releases.
    #[error("the key keeper speaks protocol version {keeper}, this program {PROTOCOL_VERSION}: install both from one release")]
    Version {
        /// What the keeper speaks.
        keeper: u16,
    },
    /// It answered something else.
    #[error("the key keeper answered out of order; the daemon must be restarted")]
    OutOfOrder,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::SecretInTransit;

    const SHORT: Duration = Duration::from_millis(20);
    const LIMITS: Limits = Limits { answer: SHORT, tpm: Duration::from_secs(60) };

    fn ready(version: u16) -> KeeperReply {
        let index_key = SecretInTransit(Secret::try_fill(|_| Ok::<(), ()>(())).unwrap());
        let standing = Standing { box_name: "box".to_owned(), start: [0; 16], log_key: [0; 32], lockout: None };
        KeeperReply::Ready { version, server_chain: Vec::new(), client_ca: Vec::new(), index_key, counter: Counter::default(), standing }
    }

    /// A keeper's end that has said `first`; what it says later waits in the socket.
    fn keeper_that_says(first: &KeeperReply) -> (Result<Keeper, KeeperError>, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(first).unwrap();
        (Keeper::connect_within(ours, SHORT, LIMITS).map(|(keeper, _)| keeper), theirs)
    }

    #[test]
    fn a_keeper_of_another_release_is_refused() {
        assert!(matches!(keeper_that_says(&ready(PROTOCOL_VERSION + 1)).0, Err(KeeperError::Version { .. })));
    }

    #[test]
    fn a_keepers_reason_reaches_the_operator() {
        let refused = keeper_that_says(&KeeperReply::Refused { reason: "no TPM".to_owned(), exit: Exit::Io.code() }).0.err().unwrap();
        assert_eq!(refused.to_string(), "the key keeper could not open the keys: no TPM");
    }

    #[test]
    fn a_keeper_that_hangs_is_given_up_and_a_late_reply_never_taken_for_another() {
        let (keeper, theirs) = keeper_that_says(&ready(PROTOCOL_VERSION));
        let keeper = keeper.unwrap();
        assert!(matches!(keeper.counters(), Err(KeeperError::Gone(Some(ChannelError::TimedOut)))));
        theirs.send(&KeeperReply::Counters(KeeperCounters::default())).unwrap();
        assert!(matches!(keeper.counters(), Err(KeeperError::Gone(None))));
        assert!(keeper.is_lost());
    }

    #[test]
    fn what_the_tpm_does_may_take_longer_than_other_answers() {
        let (keeper, theirs) = keeper_that_says(&ready(PROTOCOL_VERSION));
        let keeper = keeper.unwrap();
        let slow = std::thread::spawn(move || {
            let Ok(Some(KeeperRequest::Epoch(EpochRequest::Begin))) = theirs.recv() else { return None };
            // Nothing else comes until it is answered, for longer than the other answers may take.
            theirs.set_receive_timeout(Some(SHORT * 3)).unwrap();
            let early: Result<Option<KeeperRequest>, _> = theirs.recv();
            theirs.send(&KeeperReply::Epoch(EpochReply::At { number: 2 })).unwrap();
            Some(matches!(early, Err(ChannelError::TimedOut)))
        });
        assert!(matches!(keeper.epoch(EpochRequest::Begin), Ok(EpochReply::At { number: 2 })));
        assert_eq!(slow.join().unwrap(), Some(true));
    }

    #[test]
    fn a_keeper_that_never_greets_is_given_up() {
        let (ours, _theirs) = Channel::pair().unwrap();
        assert!(matches!(Keeper::connect_within(ours, SHORT, LIMITS), Err(KeeperError::Gone(Some(ChannelError::TimedOut)))));
    }

    #[test]
    fn a_denial_keeps_the_line_open_and_a_wrong_answer_shuts_it() {
        let (keeper, theirs) = keeper_that_says(&ready(PROTOCOL_VERSION));
        let keeper = keeper.unwrap();
        theirs.send(&KeeperReply::Denied(KeeperDenial::RateLimited { seconds: 9 })).unwrap();
        assert!(matches!(keeper.sign_tls(b""), Err(KeeperError::Denied(KeeperDenial::RateLimited { seconds: 9 }))));
        assert!(!keeper.is_lost());
        theirs.send(&KeeperReply::Signature(Vec::new())).unwrap();
        assert!(matches!(keeper.counters(), Err(KeeperError::OutOfOrder)));
        assert!(keeper.is_lost());
    }
}
