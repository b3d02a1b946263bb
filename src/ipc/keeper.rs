//! What `salamad` (or, at the console, `salama`) and `salama-keeper` say to each other.
//! Trusts: the keeper takes `salamad` for taken over: no request here yields a long-term key or signs arbitrary bytes.
//! Touches: nothing.
//! Next: `keys` (asking side), `keeper` (answering side).
//!
//! One request, one reply, in order. The keeper speaks first with [`KeeperReply::Ready`] or `Refused`.

use serde::{Deserialize, Serialize};

use super::burst::{GrantFault, SignedGrant};
use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::base::secret::SecretInTransit;

/// Bytes of a data-encryption key: AES-256.
pub const DEK_BYTES: usize = 32;

/// A call's DEK, sealed by the record KEK: version, epoch, nonce, ciphertext, tag. Opaque outside the keeper.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedDek(pub Vec<u8>);

/// Longest [`WrappedDek`], bytes.
pub const WRAPPED_DEK_MAX: usize = 128;

/// Why a DEK is opened; counted and rate-limited apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnwrapPurpose {
    /// A job transcribes the call.
    Job,
    /// A permitted person or machine reads it.
    Read,
}

/// To the keeper.
#[derive(Serialize, Deserialize)]
pub enum KeeperRequest {
    /// Make a DEK for a new call.
    NewDek {
        /// Bound into the wrapped key as associated data.
        call: CallId,
    },
    /// Open a call's DEK.
    UnwrapDek {
        /// Must be the call that the key was made for.
        call: CallId,
        /// As `NewDek` returned it.
        wrapped: WrappedDek,
        /// Counted by this.
        purpose: UnwrapPurpose,
    },
    /// Sign a TLS 1.3 handshake as the server. The keeper refuses bytes that are not a `CertificateVerify` content (RFC 8446, 4.4.3).
    SignTls {
        /// 64 spaces, the context string, a zero byte and the transcript hash.
        content: Vec<u8>,
    },
    /// How often each kind of request was served and refused.
    Counters,
    /// Count the TPM's counter up by one, once the store says durably that it will be. Asked again for the same, it is not counted again.
    Count {
        /// Where the core believes it to be.
        from: u64,
    },
    /// About the erasure epoch.
    Epoch(EpochRequest),
    /// Allow more calls to be opened for a while, because a person with a permit signed that.
    Burst(SignedGrant),
    /// Issue a client certificate. Console only: the daemon's keeper refuses it.
    IssueCertificate {
        /// PKCS#10, DER. Only its public key is used.
        csr_der: Vec<u8>,
        /// Role in the SAN URI, for example `counsellor`.
        role: String,
        /// Name in the SAN URI, `[a-z0-9._-]{1,64}`.
        name: String,
        /// Days that the certificate is valid.
        valid_days: u16,
    },
}

/// From the keeper.
#[derive(Serialize, Deserialize)]
pub enum KeeperReply {
    /// The root key is open and confinement is on. Sent once, first.
    Ready {
        /// [`super::PROTOCOL_VERSION`] of the sender.
        version: u16,
        /// The TLS server's chain, leaf first, DER.
        server_chain: Vec<Vec<u8>>,
        /// The CA that client certificates must come from, DER.
        client_ca: Vec<u8>,
        /// Key of keyed hashes and of sealed record headers (HKDF label `index`).
        index_key: SecretInTransit<DEK_BYTES>,
        /// Against older copies of the store.
        counter: Counter,
        /// What the keeper says of itself.
        standing: Standing,
    },
    /// Start-up failed; the text is for the operator. The keeper exits after it.
    Refused {
        /// What failed and what to do.
        reason: String,
        /// The exit code that says it.
        exit: u8,
    },
    /// A DEK, open and wrapped.
    NewDek {
        /// Open.
        dek: SecretInTransit<DEK_BYTES>,
        /// To be stored.
        wrapped: WrappedDek,
    },
    /// An opened DEK.
    Dek(SecretInTransit<DEK_BYTES>),
    /// An ECDSA P-256 SHA-256 signature, ASN.1 DER.
    Signature(Vec<u8>),
    /// Counted since the keeper's start.
    Counters(KeeperCounters),
    /// The counter, which was counted up.
    Counted(Counted),
    /// A grant counts from now on.
    BurstTaken,
    /// A certificate and the chain above it, DER, leaf first.
    Certificate(Vec<Vec<u8>>),
    /// About the erasure epoch.
    Epoch(EpochReply),
    /// The request was refused.
    Denied(KeeperDenial),
}

/// The TPM's counter of how often a store was taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// How far it is; nothing when it is gone.
    pub value: Option<u64>,
    /// Which other store than the newest may be taken at this state of the counter.
    pub leave: Leave,
    /// How often the keyslots were changed: an older file of them has a lower number.
    pub keys: u64,
    /// The numbers of the erasure epochs in the TPM's places.
    pub epochs: [Option<u32>; 2],
}

/// Which other store than the newest a start may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leave {
    /// None.
    #[default]
    None,
    /// The box was set up and never started: its first store, which is empty.
    First,
    /// The keys were brought into this TPM, which knows nothing of the store that there is: that one.
    Moved,
    /// The operator has said, with a recovery code or shares, that there is no newer one: any, also an empty one.
    Accepted,
}

/// The counter, once it was counted up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How far it is.
    pub at: u64,
    /// As [`Counter::keys`], now.
    pub keys: u64,
}

/// DEKs that are re-wrapped by one request: as many as surely fit into a message.
pub const REWRAP_MAX: usize = 1000;

/// About the erasure epoch, in this order: `Settle` at the start; `Begin`, `Rewrap` as often as needed, `Committed` or `Abort`; `Certify`.
#[derive(Serialize, Deserialize)]
pub enum EpochRequest {
    /// Which epoch the store's DEKs are of; nothing when it has never held one.
    Settle {
        /// The number that the store has.
        store: Option<u32>,
    },
    /// Make the next epoch.
    Begin,
    /// Wrap these by the key of the epoch that was begun. At most [`REWRAP_MAX`].
    Rewrap(Vec<(CallId, WrappedDek)>),
    /// The store has all of them, durably, and this number; the epoch before may be destroyed.
    Committed {
        /// As `Begin` gave it.
        number: u32,
    },
    /// The move is given up.
    Abort,
    /// Sign that a call is erased.
    Certify(ErasureClaim),
}

/// What the core says of an erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureClaim {
    /// The call.
    pub call: CallId,
    /// When its key was erased.
    pub erased: Timestamp,
    /// What was erased.
    pub classes: Vec<ErasedClass>,
    /// The epoch that counted then: it must be destroyed before anything is signed.
    pub epoch: u32,
}

/// A sort of data of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErasedClass {
    /// The recording.
    Recording,
    /// What the uploader said of it.
    Metadata,
    /// The redacted transcript.
    RedactedTranscript,
    /// The clear transcript and what was masked in it.
    ClearTranscript,
}

/// About the erasure epoch.
#[derive(Serialize, Deserialize)]
pub enum EpochReply {
    /// The number that counts, or that was begun.
    At {
        /// Of the epoch.
        number: u32,
    },
    /// In the order asked; nothing for one that does not open.
    Rewrapped(Vec<Option<WrappedDek>>),
    /// Done.
    Done,
    /// A certificate of erasure.
    Certificate(ErasureCertificate),
}

/// A statement in JSON and its signature: ECDSA P-256, SHA-256, ASN.1 DER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureCertificate {
    /// The bytes that are signed.
    pub statement: String,
    /// Over them.
    pub signature: Vec<u8>,
}

/// What the keeper says of itself, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The box, as its certificates name it.
    pub box_name: String,
    /// This start of the keeper: random; grants and signed lines name it.
    pub start: StartId,
    /// The Ed25519 key that its lines verify with.
    pub log_key: [u8; 32],
    /// The TPM's protection against guessing, as it was at the start; none when the TPM did not tell.
    pub lockout: Option<TpmLockout>,
}

/// A start of the keeper.
pub type StartId = [u8; 16];

/// The TPM's protection against guessing PINs, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmLockout {
    /// When it was read.
    pub at: Timestamp,
    /// Wrong tries that were not forgiven.
    pub failed: u32,
    /// Tries until it locks.
    pub tries: u32,
    /// It took no PIN.
    pub locked: bool,
}

/// Uses of keys since the keeper's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperCounters {
    /// DEKs made.
    pub new_deks: u64,
    /// DEKs opened for jobs.
    pub unwraps_job: u64,
    /// DEKs opened for reading.
    pub unwraps_read: u64,
    /// TLS handshakes signed.
    pub tls_signatures: u64,
    /// Requests refused for any reason.
    pub denied: u64,
    /// Requests refused for a limit.
    pub limited: u64,
    /// Incidents in the keeper's own stream.
    pub incidents: u64,
    /// Grants that were taken.
    pub grants: u64,
}

/// Why the keeper refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KeeperDenial {
    /// The limit of this kind of use is reached.
    #[error("the key keeper's limit for this kind of use is reached; try again in {seconds} s")]
    RateLimited {
        /// Until when.
        seconds: u32,
    },
    /// The wrapped key is not this call's, or damaged.
    #[error("the call's wrapped key does not open: it is damaged or belongs to another call")]
    WrongKey,
    /// The bytes are not what this kind of signature signs.
    #[error("the key keeper signs nothing but TLS 1.3 server handshakes with this key")]
    NotSignable,
    /// The request is for the console's keeper only.
    #[error("the daemon's key keeper does not issue certificates; use `salama enrol` at the console")]
    ConsoleOnly,
    /// The certificate request is malformed.
    #[error("the certificate request is malformed or its key is not ECDSA P-256")]
    BadRequest,
    /// The counter is not where the core believes it to be.
    #[error("the TPM's counter of starts is elsewhere than salamad believes; restart the daemon")]
    CounterElsewhere,
    /// The grant is not one.
    #[error(transparent)]
    Grant(GrantFault),
    /// The random number generator or a cipher failed.
    #[error("a cryptographic operation, or the TPM, failed in the key keeper")]
    Internal,
    /// The store's epoch is not in the TPM.
    #[error(
        "calls were erased after this state directory was copied, and what opened its calls was destroyed in the TPM then: put the newest state \
         directory back. This one opens no call any more, on this machine neither"
    )]
    OtherEpoch,
    /// The store's epoch is newer than the TPM's.
    #[error(
        "the store is newer than the keys: the key directory, or what a recovery code brought into this TPM, is from before calls were last erased \
         for good. Put the newest key directory back (salama keys reseal, on another machine)"
    )]
    OlderKeys,
    /// Nothing was settled or begun, or the erasure is not yet final.
    #[error("the key keeper is asked about erasure epochs out of order")]
    EpochOutOfOrder,
    /// TPM or key directory.
    #[error("the erasure epoch could not be read or written: see the key keeper's lines in the journal; it is tried again")]
    EpochFailed,
    /// An empty store where calls are to be.
    #[error(
        "the state directory has no store, or one that never held a call, but when the last one was in use a move of the erasure epoch was cut off: \
         this start does not decide whether its calls are lost. Mount or put back the state directory and start again. If it is gone for good: \
         `salama recover --accept-rollback` lets the next start begin with an empty one, and no copy of the other ever opens again"
    )]
    EmptyStore,
}
