//! What must hold before a slot's key may be opened: PCR values or an authority's approval of them, a PIN, and nothing but unsealing.
//! Trusts: nothing; the TPM itself decides, this says beforehand what it will compute.
//! Touches: the TPM, for the values of PCRs and to satisfy a session.
//! Next: `seal` binds objects to [`Policy::digest`] and opens them in a session that satisfied it.
//!
//! Digests are those of TCG "TPM 2.0 Library", part 3, chapter 23: `next = SHA-256(last | command code | what)`. They are computed here
//! instead of in a trial session, so that a state can be approved before it is there.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::CommandCode;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{
    Digest, EccParameter, EccPoint, EccScheme, EccSignature, HashScheme, KeyDerivationFunctionScheme, Nonce, PcrSelectionList, PcrSlot,
    Public, PublicBuilder, PublicEccParametersBuilder, Signature, SymmetricDefinitionObject, VerifiedTicket,
};
use tss_esapi::traits::Marshall;
use tss_esapi::{Context, Result as TssResult};

use super::Tpm;
use super::error::{Step, TpmError};

/// Bytes of a digest.
pub const DIGEST: usize = 32;
/// PCRs that a policy may name: what one `TPM2_PCR_Read` gives.
const PCRS_MAX: u32 = 8;
const PCRS: u32 = 24;

const POLICY_AUTHORIZE: u32 = 0x0000_016a;
const POLICY_AUTH_VALUE: u32 = 0x0000_016b;
const POLICY_COMMAND_CODE: u32 = 0x0000_016c;
const POLICY_PCR: u32 = 0x0000_017f;
const UNSEAL: u32 = 0x0000_015e;
const SHA256_ID: u16 = 0x000b;

/// A set of PCRs of the SHA-256 bank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pcrs(u32);

impl Pcrs {
    /// Bit n stands for PCR n. Nothing for a PCR that no machine has, or too many at once.
    pub const fn new(mask: u32) -> Option<Self> {
        if mask >> PCRS == 0 && mask.count_ones() <= PCRS_MAX { Some(Self(mask)) } else { None }
    }

    /// None at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their numbers, rising.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..u8::try_from(PCRS).unwrap_or(0)).filter(move |number| self.0 >> number & 1 == 1)
    }

    /// `7+11`, or `none`.
    pub fn words(self) -> String {
        if self.is_empty() {
            return "none".to_owned();
        }
        self.numbers().map(|number| number.to_string()).collect::<Vec<_>>().join("+")
    }

    /// `TPML_PCR_SELECTION` with one bank.
    fn marshalled(self) -> Vec<u8> {
        let [_, high, middle, low] = self.0.to_be_bytes();
        [&1_u32.to_be_bytes()[..], &SHA256_ID.to_be_bytes(), &[3, low, middle, high]].concat()
    }

    fn selection(self) -> TssResult<PcrSelectionList> {
        let slots: Vec<PcrSlot> = self.numbers().filter_map(|number| PcrSlot::try_from(1_u32 << number).ok()).collect();
        PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots).build()
    }
}

/// What a slot asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The PCRs as they were when it was sealed; with an authority these are in its approvals.
    pub measured: Option<Measured>,
    /// Whoever may approve of measured states.
    pub authority: Option<Authority>,
    /// A PIN.
    pub pin: bool,
}

/// PCRs and the digest of their values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Which.
    pub pcrs: Pcrs,
    /// `PolicyPCR` over them alone.
    pub digest: [u8; DIGEST],
}

/// An offline key whose signature stands for PCR values: an update can be approved before it is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Which PCRs.
    pub pcrs: Pcrs,
    /// ECDSA P-256: the point, x then y.
    pub point: Vec<u8>,
    /// What it approved of.
    pub approvals: Vec<Approval>,
}

/// One approved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The state.
    pub measured: Measured,
    /// ECDSA over SHA-256 of [`approval_text`]: r then s.
    pub signature: Vec<u8>,
}

/// `policyRef`: separates approvals for Salama, and for one set of PCRs, from anything else that the same key signs; and tells the
/// signer what the digest before it is of.
fn policy_ref(pcrs: Pcrs) -> Vec<u8> {
    format!("salama measured state 1, PCR {}", pcrs.words()).into_bytes()
}

/// The state that an approval's text stands for; nothing for a text of other PCRs.
pub fn approved_state(pcrs: Pcrs, text: &[u8]) -> Option<Measured> {
    let digest = text.strip_suffix(&*policy_ref(pcrs))?.try_into().ok()?;
    Some(Measured { pcrs, digest })
}

/// What the authority signs.
pub fn approval_text(measured: &Measured) -> Vec<u8> {
    [&measured.digest[..], &policy_ref(measured.pcrs)].concat()
}

/// The digest of `PolicyPCR` over these values, in the order of their numbers.
pub fn measured(pcrs: Pcrs, values: &[[u8; DIGEST]]) -> Measured {
    let values = sha256(&values.concat());
    let digest = extended(&[0; DIGEST], POLICY_PCR, &[&pcrs.marshalled()[..], &values].concat());
    Measured { pcrs, digest }
}

impl Policy {
    /// The digest that the TPM must come to.
    ///
    /// # Errors
    /// [`TpmError::Approval`] for an authority that is no point.
    pub fn digest(&self) -> Result<[u8; DIGEST], TpmError> {
        let mut now = match (&self.authority, &self.measured) {
            (Some(authority), _) => {
                let first = extended(&[0; DIGEST], POLICY_AUTHORIZE, &authority.name()?);
                sha256(&[&first[..], &policy_ref(authority.pcrs)].concat())
            }
            (None, Some(measured)) => measured.digest,
            (None, None) => [0; DIGEST],
        };
        if self.pin {
            now = extended(&now, POLICY_AUTH_VALUE, &[]);
        }
        Ok(extended(&now, POLICY_COMMAND_CODE, &UNSEAL.to_be_bytes()))
    }

    /// The PCRs that must be right now, by name.
    pub fn pcrs(&self) -> Pcrs {
        let measured = || self.measured.as_ref().map_or(Pcrs::default(), |measured| measured.pcrs);
        self.authority.as_ref().map_or_else(measured, |authority| authority.pcrs)
    }
}

fn extended(last: &[u8; DIGEST], command: u32, what: &[u8]) -> [u8; DIGEST] {
    sha256(&[&last[..], &command.to_be_bytes(), what].concat())
}

fn sha256(bytes: &[u8]) -> [u8; DIGEST] {
    let mut out = [0; DIGEST];
    out.iter_mut().zip(digest(&SHA256, bytes).as_ref()).for_each(|(to, from)| *to = *from);
    out
}

impl Authority {
    fn public(&self) -> Result<Public, TpmError> {
        let (x, y) = self.point.split_at_checked(DIGEST).filter(|(_, y)| y.len() == DIGEST).ok_or(TpmError::Approval)?;
        let build = || {
            let attributes = ObjectAttributesBuilder::new().with_user_with_auth(true).with_sign_encrypt(true).build()?;
            let curve = PublicEccParametersBuilder::new()
                .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
                .with_curve(EccCurve::NistP256)
                .with_is_signing_key(true)
                .with_symmetric(SymmetricDefinitionObject::Null)
                .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                .build()?;
            PublicBuilder::new()
                .with_public_algorithm(PublicAlgorithm::Ecc)
                .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
                .with_object_attributes(attributes)
                .with_ecc_parameters(curve)
                .with_ecc_unique_identifier(EccPoint::new(EccParameter::try_from(x)?, EccParameter::try_from(y)?))
                .build()
        };
        build().map_err(|_| TpmError::Approval)
    }

    fn name(&self) -> Result<Vec<u8>, TpmError> {
        let public = self.public()?.marshall().map_err(|_| TpmError::Approval)?;
        Ok([&SHA256_ID.to_be_bytes()[..], &sha256(&public)].concat())
    }
}

impl Tpm<'_> {
    /// The state of these PCRs now.
    ///
    /// # Errors
    /// As [`Self::values`].
    pub fn measure(&mut self, pcrs: Pcrs) -> Result<Measured, TpmError> {
        Ok(measured(pcrs, &self.values(pcrs)?))
    }

    /// The values of these PCRs now, in the order of their numbers.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::NoBank`] from a TPM that keeps no SHA-256 values.
    pub fn values(&mut self, pcrs: Pcrs) -> Result<Vec<[u8; DIGEST]>, TpmError> {
        if pcrs.is_empty() {
            return Ok(Vec::new());
        }
        let read = pcrs.selection().and_then(|selection| self.context.execute_without_session(|tpm| tpm.pcr_read(selection)));
        let (_, _, digests) = read.map_err(TpmError::at(Step::Properties))?;
        let values: Vec<[u8; DIGEST]> = digests.value().iter().filter_map(|value| value.value().try_into().ok()).collect();
        if values.len() == pcrs.numbers().count() { Ok(values) } else { Err(TpmError::NoBank) }
    }

    /// The approval that holds now, with the TPM's own word that the signature is right.
    pub(super) fn approval(&mut self, authority: &Authority) -> Result<(Measured, VerifiedTicket), TpmError> {
        let now = self.measure(authority.pcrs)?;
        for approval in &authority.approvals {
            if now == approval.measured {
                let ticket = self.verified(authority, approval)?;
                return Ok((approval.measured.clone(), ticket));
            }
        }
        Err(TpmError::NotApproved { pcrs: authority.pcrs.words() })
    }

    fn verified(&mut self, authority: &Authority, approval: &Approval) -> Result<VerifiedTicket, TpmError> {
        let public = authority.public()?;
        let (r, s) = approval.signature.split_at_checked(DIGEST).ok_or(TpmError::Approval)?;
        let signed = sha256(&approval_text(&approval.measured));
        let verify = || {
            let signature = EccSignature::create(HashingAlgorithm::Sha256, EccParameter::try_from(r)?, EccParameter::try_from(s)?)?;
            // Of the owner's hierarchy: PolicyAuthorize takes no ticket of the null hierarchy.
            let key = self.context.execute_without_session(|tpm| tpm.load_external_public(public, Hierarchy::Owner))?;
            let digest = Digest::try_from(signed.to_vec())?;
            let ticket = self.context.execute_without_session(|tpm| tpm.verify_signature(key, digest, Signature::EcDsa(signature)));
            self.context.flush_context(key.into())?;
            ticket
        };
        verify().map_err(TpmError::at(Step::Policy))
    }
}

/// Does in `session` what `policy` asks for. Which approval holds was found out before.
pub(super) fn satisfy(
    tpm: &mut Context,
    session: PolicySession,
    policy: &Policy,
    approved: Option<(Measured, VerifiedTicket, Vec<u8>)>,
) -> TssResult<()> {
    let measured = approved.as_ref().map_or(policy.measured.as_ref(), |(measured, ..)| Some(measured));
    if let Some(measured) = measured.filter(|measured| approved.is_some() || !measured.pcrs.is_empty()) {
        tpm.policy_pcr(session, Digest::default(), measured.pcrs.selection()?)?;
    }
    if let Some((measured, ticket, name)) = approved {
        let name = tss_esapi::structures::Name::try_from(name)?;
        tpm.policy_authorize(
            session,
            Digest::try_from(measured.digest.to_vec())?,
            Nonce::try_from(policy_ref(measured.pcrs))?,
            &name,
            ticket,
        )?;
    }
    if policy.pin {
        tpm.policy_auth_value(session)?;
    }
    tpm.policy_command_code(session, CommandCode::Unseal)
}

/// The TPM name of the authority's key.
pub(super) fn authority_name(authority: &Authority) -> Result<Vec<u8>, TpmError> {
    authority.name()
}
