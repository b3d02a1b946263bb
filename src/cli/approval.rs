//! The files of an authority that approves of measured states: its key, what it signed, its signature; and how PCRs are written.
//! Trusts: nothing; the keeper checks the signature.
//! Touches: the files that the command line names.
//! Next: `keys` gives them to the keeper.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use super::keys::KeysError;
use crate::ipc::keyslots::ApprovalFile;

/// What was signed, and the signature.
#[derive(Debug, Args)]
pub struct SignedArgs {
    /// What `salama keys policy` wrote.
    #[arg(long, value_name = "FILE")]
    approval: PathBuf,
    /// The authority's signature of it, as openssl writes it.
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
}

/// As [`SignedArgs`], where there may be no authority.
#[derive(Debug, Args)]
pub struct MaybeSignedArgs {
    /// What `salama keys policy` wrote, signed by the authority.
    #[arg(long, value_name = "FILE", requires = "authority")]
    approval: Option<PathBuf>,
    /// The authority's signature of it, as openssl writes it.
    #[arg(long, value_name = "FILE", requires = "authority")]
    signature: Option<PathBuf>,
}

impl SignedArgs {
    /// Reads both files.
    pub fn read(&self) -> Result<ApprovalFile, Failure> {
        let (text, signature) = (read(&self.approval)?, read(&self.signature)?);
        let signature = fixed_signature(&signature).ok_or_else(|| KeysError::NoSignature(self.signature.clone()))?;
        Ok(ApprovalFile { text, signature })
    }
}

impl MaybeSignedArgs {
    /// Reads both files; clap has seen to it that both are named.
    pub fn read(&self) -> Result<ApprovalFile, Failure> {
        match (&self.approval, &self.signature) {
            (Some(approval), Some(signature)) => SignedArgs { approval: approval.clone(), signature: signature.clone() }.read(),
            _ => Err(Failure::Usage("an authority needs --approval and --signature".to_owned())),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|cause| Failure::Read { path: path.to_owned(), cause })
}

/// A P-256 key before its point (RFC 5480: SubjectPublicKeyInfo of id-ecPublicKey with secp256r1).
const P256_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00, 0x04,
];

/// The point of the key in a PEM file.
pub fn authority(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = read(path)?;
    let key = pem::parse(text).ok().filter(|pem| pem.tag() == "PUBLIC KEY");
    let point = key.as_ref().and_then(|key| key.contents().strip_prefix(&P256_HEAD)).filter(|point| point.len() == 64);
    Ok(point.ok_or_else(|| KeysError::NoAuthority(path.to_owned()))?.to_vec())
}

/// r and s, 32 bytes each, of `ECDSA-Sig-Value` (RFC 3279, 2.2.3).
fn fixed_signature(der: &[u8]) -> Option<Vec<u8>> {
    let (&[0x30, length], body) = der.split_first_chunk::<2>()? else { return None };
    if usize::from(length) != body.len() {
        return None;
    }
    let (r, rest) = integer(body)?;
    let (s, rest) = integer(rest)?;
    rest.is_empty().then(|| [r, s].concat())
}

fn integer(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let (&[0x02, length], rest) = der.split_first_chunk::<2>()? else { return None };
    let (value, rest) = rest.split_at_checked(usize::from(length))?;
    let value = value.strip_prefix(&[0]).unwrap_or(value);
    let mut number = [0; 32];
    let at = number.len().checked_sub(value.len())?;
    number.get_mut(at..)?.copy_from_slice(value);
    Some((number, rest))
}

/// `none`, `7`, `7+11` or `7,11`; bit n for PCR n.
pub fn pcrs(text: &str) -> Result<u32, String> {
    if text == "none" {
        return Ok(0);
    }
    text.split(['+', ',']).try_fold(0, |mask, number| match number.parse::<u32>() {
        Ok(number) if number < 24 => Ok(mask | 1 << number),
        _ => Err("PCRs are numbers from 0 to 23, as 7 or 7+11, or none".to_owned()),
    })
}

/// `NUMBER=HEX`.
pub fn pcr_value(text: &str) -> Result<(u8, [u8; 32]), String> {
    let wrong = || "write the number of a PCR, =, and 64 hexadecimal digits".to_owned();
    let (number, digits) = text.split_once('=').ok_or_else(wrong)?;
    let number = number.parse::<u8>().ok().filter(|number| *number < 24).ok_or_else(wrong)?;
    let mut value = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(wrong());
    }
    for (at, to) in value.iter_mut().enumerate() {
        *to = digits.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok((number, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_are_written_with_plus_or_comma() {
        assert_eq!([pcrs("none"), pcrs("7"), pcrs("7+11"), pcrs("11,7")].map(Result::unwrap), [0, 0x80, 0x880, 0x880]);
        for wrong in ["", "24", "-1", "7+", "seven"] {
            assert!(pcrs(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pcrs_value_is_64_digits() {
        assert_eq!(pcr_value(&format!("7={}", "ab".repeat(32))).unwrap(), (7, [0xab; 32]));
        for wrong in ["7", "7=", "24=00", &format!("7={}", "g".repeat(64)), &format!("7={}", "é".repeat(32))] {
            assert!(pcr_value(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signatures_of_openssl_become_two_numbers() {
        let mut der = vec![0x30, 0x25, 0x02, 0x21, 0x00];
        der.extend([0xff; 32]);
        assert_eq!(fixed_signature(&der), None, "s is missing");
        der[1] = 0x28;
        der.extend([0x02, 0x01, 0x07]);
        assert_eq!(fixed_signature(&der), None, "the length is wrong");
        der[1] = 0x26;
        let fixed = fixed_signature(&der).unwrap();
        assert_eq!((&fixed[..32], &fixed[32..63], fixed[63]), ([0xff; 32].as_slice(), [0; 31].as_slice(), 7));
    }
}
