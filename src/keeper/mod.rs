//! The key process: the only code that speaks to the TPM and holds long-term keys.
//! Trusts: the TPM whose storage root it recorded when the box was provisioned; nothing that comes over its channel.
//! Touches: the TPM and the key directory: beside the daemon by what was opened before confinement; its channel, standard error, the clock.
//! Next: `src/bin/salama-keeper.rs` tells the start-up; `keys` is the asking side.
//!
//! ```text
//! keyslots (tpm: sealed slot key + half in NV | recovery code | shares) -- open (slots) -->
//!                  root key -- HKDF (hierarchy) --> record KEK   wraps the calls' DEKs (wrap)
//!                                                   index key    given to the core in the greeting
//!                                                   TLS wrap     opens the server's private key (keyring, signer)
//!                                                   CA wrap      opens the CA's private key (ca), at the console only
//!                                                   file MAC     authenticates the files of the key directory (container)
//!                                                   audit sign   signs the keeper's own lines (chain, journal)
//! ```

pub mod args;
pub mod burst;
pub mod ca;
pub mod chain;
pub mod code;
pub mod container;
pub mod directory;
pub mod epoch;
pub mod erasure;
pub mod grant;
pub mod held;
pub mod hierarchy;
pub mod journal;
pub mod keyring;
pub mod keyslots;
pub mod ledger;
pub mod limits;
pub mod manage;
pub mod moving;
pub mod owner;
pub mod pin;
pub mod places;
pub mod provision;
pub mod quota;
pub mod random;
pub mod recovery;
pub mod replace;
pub mod rollback;
pub mod serve;
pub mod shares;
pub mod signer;
pub mod slots;
pub mod startup;
pub mod tpm;
pub mod unfinished;
pub mod window;
pub mod wrap;
