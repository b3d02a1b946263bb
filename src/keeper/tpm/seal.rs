//! One secret sealed in the TPM under a policy, and opened again.
//! Trusts: the connection's storage root.
//! Touches: the TPM.
//! Next: `slots` opens, `manage` seals.

use serde::{Deserialize, Serialize};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{Auth, Digest, KeyedHashScheme, Private, Public, PublicBuilder, PublicKeyedHashParameters, SensitiveData};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::{Error as TssError, Result as TssResult};

use super::Tpm;
use super::error::{Step, TpmError, is_wrong_password, kind};
use super::policy::{self, Policy};
use crate::base::secret::Secret;

use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;

/// Bytes of a sealed secret, and of the value that a PIN becomes.
pub const SEALED_BYTES: usize = 32;

/// A secret as only one TPM can open it. Not secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// The content of `TPM2B_PRIVATE`, encrypted by the storage root.
    pub private: Vec<u8>,
}

impl Tpm<'_> {
    /// Seals `secret` under the storage root. Only a session that satisfied `policy` opens it, and only by `TPM2_Unseal`; `pin` is the
    /// value that the session must know besides, and tries of it count for the TPM's dictionary-attack protection.
    ///
    /// # Errors
    /// [`TpmError`], naming the step.
    pub fn seal(&mut self, policy: &Policy, pin: Option<&Secret<SEALED_BYTES>>, secret: &Secret<SEALED_BYTES>) -> Result<Sealed, TpmError> {
        let digest = policy.digest()?;
        let root = self.root;
        let seal = |tpm: &mut Self| {
            let template = template(&digest, policy.pin)?;
            let auth = pin.map(auth_of).transpose()?;
            let sensitive = SensitiveData::try_from(secret.expose().as_slice())?;
            let created = tpm.in_session(SessionType::Hmac, |tpm, session| {
                tpm.execute_with_session(Some(session), |tpm| tpm.create(root, template, auth, Some(sensitive), None, None))
            })?;
            Ok(Sealed { public: created.out_public.marshall()?, private: created.out_private.to_vec() })
        };
        seal(self).map_err(TpmError::at(Step::Seal))
    }

    /// Opens what [`Self::seal`] gave for the same policy and PIN.
    ///
    /// # Errors
    /// [`TpmError`]: the step, or what is wrong with PIN or measured state.
    pub fn unseal(
        &mut self,
        policy: &Policy,
        pin: Option<&Secret<SEALED_BYTES>>,
        sealed: &Sealed,
    ) -> Result<Secret<SEALED_BYTES>, TpmError> {
        let approved = match &policy.authority {
            Some(authority) => {
                let (measured, ticket) = self.approval(authority)?;
                Some((measured, ticket, policy::authority_name(authority)?))
            }
            None => None,
        };
        let object = self.load(sealed)?;
        let opened = self.open(policy, pin, object, approved).map_err(|error| refusal(error, policy));
        self.context.flush_context(object.into()).map_err(TpmError::at(Step::Unseal))?;
        let opened = opened?;
        Secret::try_fill(|to| {
            let from: &[u8; SEALED_BYTES] = opened.value().try_into().map_err(|_| TpmError::WrongLength)?;
            to.copy_from_slice(from);
            Ok(())
        })
    }

    fn load(&mut self, sealed: &Sealed) -> Result<KeyHandle, TpmError> {
        let root = self.root;
        let mut load = || {
            let public = Public::unmarshall(&sealed.public)?;
            let private = Private::try_from(sealed.private.clone())?;
            self.in_session(SessionType::Hmac, |tpm, session| {
                tpm.execute_with_session(Some(session), |tpm| tpm.load(root, private, public))
            })
        };
        load().map_err(TpmError::at(Step::Load))
    }

    fn open(
        &mut self,
        policy: &Policy,
        pin: Option<&Secret<SEALED_BYTES>>,
        object: KeyHandle,
        approved: Option<(policy::Measured, tss_esapi::structures::VerifiedTicket, Vec<u8>)>,
    ) -> Result<SensitiveData, (Step, TssError)> {
        let auth = pin.map(auth_of).transpose().map_err(|error| (Step::Unseal, error))?;
        let mut at = Step::Session;
        let opened = self.in_session(SessionType::Policy, |tpm, session| {
            at = Step::Policy;
            if let Some(auth) = auth {
                tpm.tr_set_auth(object.into(), auth)?;
            }
            policy::satisfy(tpm, PolicySession::try_from(session)?, policy, approved)?;
            at = Step::Unseal;
            tpm.execute_with_session(Some(session), |tpm| tpm.unseal(object.into()))
        });
        opened.map_err(|error| (at, error))
    }
}

fn refusal((step, error): (Step, TssError), policy: &Policy) -> TpmError {
    let measured = || TpmError::Measured { pcrs: policy.pcrs().words() };
    match kind(error) {
        Some(Kind::AuthFail | Kind::BadAuth) if policy.pin && is_wrong_password(error) => TpmError::WrongPin(error),
        Some(Kind::PolicyFail | Kind::PcrChanged | Kind::Value) if !policy.pcrs().is_empty() => measured(),
        _ => TpmError::at(step)(error),
    }
}

fn auth_of(pin: &Secret<SEALED_BYTES>) -> TssResult<Auth> {
    Auth::try_from(pin.expose().as_slice())
}

/// A sealed object without `userWithAuth`: the policy is the only way in. Without a PIN there is nothing to guess, so it is exempt from
/// the dictionary-attack protection; with one it is not.
fn template(policy: &[u8], pin: bool) -> TssResult<Public> {
    let attributes = ObjectAttributesBuilder::new().with_fixed_tpm(true).with_fixed_parent(true).with_no_da(!pin).build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(Digest::try_from(policy.to_vec())?)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}
