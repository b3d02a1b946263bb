//! Certificates of erasure: what they say, and the key that signs them.
//! Trusts: the core for which call was erased and when; itself for the epoch that was destroyed since.
//! Touches: at the start the key directory, where boxes of before have no such key yet.
//! Next: `moving` signs once the epoch has moved; anybody verifies with `erasure.pem`.

use rcgen::PublicKeyData as _;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::ipc::keeper::{ErasedClass, ErasureCertificate, ErasureClaim};

use super::container::{self, ContainerError, Sort};
use super::directory::DirectoryError;
use super::hierarchy::{DeriveError, Purpose, Root};
use super::replace::OpenDirectory;
use super::signer::{EcKey, KeyError};
use super::slots::file_mac;
use super::wrap::{UnwrapError, WrapError, WrappingKey};

/// The wrapped private key.
pub const ERASURE_KEY: &str = "erasure";
/// The public key in PEM, for whoever verifies; not read by the keeper.
pub const ERASURE_PEM: &str = "erasure.pem";

const FILE: Sort = Sort::new(b"salama erasure \n", 1);
const WHAT: &str = "erasure key";
const OWNER: &[u8] = b"erasure";
/// `SubjectPublicKeyInfo` of an uncompressed point on P-256, before the point (RFC 5480).
const SPKI: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

#[derive(Serialize, Deserialize)]
struct Stored {
    wrapped: Vec<u8>,
}

/// What a certificate says.
#[derive(Serialize)]
struct Statement<'a> {
    /// Of this document.
    schema: &'static str,
    call: CallId,
    erased_at: String,
    classes: &'a [ErasedClass],
    /// What opened the call was of this epoch, which is destroyed.
    epoch: u32,
    /// What opens the other calls.
    epoch_now: u32,
    issued_at: String,
    /// What the keeper cannot know, and was told by the program that asked.
    told_by_salamad: [&'static str; 3],
    /// What still opens the call, if it exists.
    not_covered: Vec<String>,
}

/// The limits of a certificate, in its own words: papers carry the epoch of their time, and epoch 0 has no secret to destroy.
fn not_covered(epoch: u32, Destroyed { epoch_now, elsewhere }: Destroyed) -> Vec<String> {
    let mut limits = vec![format!(
        "a copy of the disk together with a recovery code or shares, when both are from before epoch {epoch_now} and the paper was not destroyed"
    )];
    if epoch == 0 {
        limits.push("a copy of the disk from before epoch 1, on this machine (docs/KEYS.md, Erasure that lasts)".to_owned());
    }
    if elsewhere {
        limits.push(
            "a copy of the disk from before the box came to this machine, together with the TPM of the machine before, until that TPM is cleared (docs/KEYS.md, Erasure that lasts)"
                .to_owned(),
        );
    }
    limits
}

/// What the keeper knows of the epochs.
#[derive(Clone, Copy, Debug)]
pub struct Destroyed {
    /// The one that counts; those before it are not in this TPM any more.
    pub epoch_now: u32,
    /// Some may be in the TPM of a machine that the box was on before.
    pub elsewhere: bool,
}

/// Files of the key directory: name and bytes.
type NewFiles = [(&'static str, Vec<u8>); 2];

/// A new key, and its files.
///
/// # Errors
/// [`ErasureKeyError`].
pub fn create(root: &Root) -> Result<(EcKey, NewFiles), ErasureKeyError> {
    let (key, pkcs8) = EcKey::generate()?;
    let file = container::write(FILE, &Stored { wrapped: wrapping(root)?.wrap(OWNER, &pkcs8)? }, &file_mac(root)?)?;
    let public = pem::encode(&pem::Pem::new("PUBLIC KEY", [SPKI, key.der_bytes()].concat()));
    Ok((key, [(ERASURE_KEY, file), (ERASURE_PEM, public.into_bytes())]))
}

/// The box's key, made now where there is none yet.
///
/// # Errors
/// [`ErasureKeyError`].
pub fn of_box(directory: &OpenDirectory, root: &Root) -> Result<EcKey, ErasureKeyError> {
    let file = match directory.read(ERASURE_KEY) {
        Ok(file) => file,
        Err(DirectoryError::Missing(_)) => {
            let (key, files) = create(root)?;
            let exclusive = directory.exclusive()?;
            for (name, bytes) in files.iter().rev() {
                exclusive.replace(name, bytes)?;
            }
            return Ok(key);
        }
        Err(error) => return Err(error.into()),
    };
    let stored = container::read::<Stored>(FILE, &file)?.authenticate(&file_mac(root)?)?;
    Ok(EcKey::from_pkcs8(&wrapping(root)?.unwrap(OWNER, &stored.wrapped)?)?)
}

/// Signs that a call of an epoch that is destroyed was erased.
///
/// # Errors
/// [`KeyError`].
pub fn certify(key: &EcKey, claim: &ErasureClaim, destroyed: Destroyed, now: Timestamp) -> Result<ErasureCertificate, KeyError> {
    let statement = Statement {
        schema: "salama.erasure/1",
        call: claim.call,
        erased_at: claim.erased.rfc3339(),
        classes: &claim.classes,
        epoch: claim.epoch,
        epoch_now: destroyed.epoch_now,
        issued_at: now.rfc3339(),
        told_by_salamad: ["call", "erased_at", "classes"],
        not_covered: not_covered(claim.epoch, destroyed),
    };
    let statement = serde_json::to_string(&statement).map_err(|_| KeyError::Sign)?;
    let signature = key.sign(statement.as_bytes())?;
    Ok(ErasureCertificate { statement, signature })
}

fn wrapping(root: &Root) -> Result<WrappingKey, ErasureKeyError> {
    Ok(WrappingKey::new(&root.derive(Purpose::ErasureWrap)?, WHAT)?)
}

/// Why there is no key for certificates of erasure.
#[derive(Debug, thiserror::Error)]
pub enum ErasureKeyError {
    /// Its file.
    #[error("the file {ERASURE_KEY} cannot be used")]
    File(#[from] ContainerError),
    /// The key directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Wrapping.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// Unwrapping.
    #[error(transparent)]
    Unwrap(#[from] UnwrapError),
    /// The key itself.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::base::secret::Secret;

    #[test]
    fn a_certificate_says_whose_word_it_is_and_what_it_does_not_reach() {
        let (key, _) = EcKey::generate().unwrap();
        let statement_where = |epoch, elsewhere| {
            let claim =
                ErasureClaim { call: CallId::from_bytes([7; 16]), erased: Timestamp::from_unix_millis(0), classes: Vec::new(), epoch };
            certify(&key, &claim, Destroyed { epoch_now: 5, elsewhere }, Timestamp::from_unix_millis(0)).unwrap().statement
        };
        let statement = |epoch| statement_where(epoch, false);
        assert!(!statement(4).contains("TPM of the machine before"));
        assert!(statement_where(4, true).contains("together with the TPM of the machine before, until that TPM is cleared"));
        assert!(statement(4).contains(r#""told_by_salamad":["call","erased_at","classes"]"#));
        assert!(statement(4).contains("a copy of the disk together with a recovery code or shares, when both are from before epoch 5"));
        assert!(!statement(4).contains("from before epoch 1"));
        assert!(statement(0).contains("from before epoch 1, on this machine"), "an epoch that has no secret");
    }

    #[test]
    fn a_certificate_is_verified_by_openssl_and_a_changed_one_is_not() {
        let root = Root::new(&Secret::try_fill(|_| Ok::<(), ()>(())).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let directory = OpenDirectory::open(folder.path()).unwrap();
        of_box(&directory, &root).unwrap();
        let key = of_box(&directory, &root).unwrap();
        let claim = ErasureClaim {
            call: CallId::from_bytes([7; 16]),
            erased: Timestamp::from_unix_millis(1_700_000_000_000),
            classes: vec![ErasedClass::Recording, ErasedClass::ClearTranscript],
            epoch: 3,
        };
        let certificate =
            certify(&key, &claim, Destroyed { epoch_now: 4, elsewhere: false }, Timestamp::from_unix_millis(1_700_000_900_000)).unwrap();
        assert!(certificate.statement.contains(r#""classes":["recording","clear_transcript"],"epoch":3,"epoch_now":4"#));
        std::fs::write(folder.path().join("signature"), &certificate.signature).unwrap();
        let verified = |text: &str| {
            std::fs::write(folder.path().join("statement"), text).unwrap();
            let openssl = Command::new("openssl")
                .args(["dgst", "-sha256", "-verify", ERASURE_PEM, "-signature", "signature", "statement"])
                .current_dir(folder.path())
                .output();
            openssl.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): apt-get install openssl")).status.success()
        };
        assert!(verified(&certificate.statement));
        assert!(!verified(&certificate.statement.replace("\"epoch\":3", "\"epoch\":2")));
    }
}
