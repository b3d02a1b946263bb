//! `[keeper]`: where the keys are. How often they may be used is the keeper's own business: `limits.toml` in its directory.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `lifecycle` makes the keeper's command line of it.

use std::fmt;
use std::path::PathBuf;

use super::read::Section;

/// The section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Sealed keys and certificates.
    pub directory: PathBuf,
    /// The TPM.
    pub tpm: Tcti,
}

/// How the TPM is reached, in the notation of tpm2-tss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcti(String);

impl Tcti {
    /// `device:/dev/tpmrm0` or `swtpm:host=127.0.0.1,port=2321`; no other transport.
    fn parse(text: &str) -> Option<Self> {
        let device = text.strip_prefix("device:/dev/tpm").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let software = text.strip_prefix("swtpm:host=127.0.0.1,port=").is_some_and(|port| port.parse::<u16>().is_ok());
        (device || software).then(|| Self(text.to_owned()))
    }

    /// As tpm2-tss and the keeper's command line take it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Keeper {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        section.moved(
            "unwraps_per_minute",
            "is no setting of this file any more; remove it, and say `per_minute` under [job] and [read] in limits.toml of the key directory instead",
        );
        section.moved(
            "handshakes_per_minute",
            "is no setting of this file any more; remove it, and say `per_minute` under [handshake] in limits.toml of the key directory instead",
        );
        let rule = "must be \"device:/dev/tpmrm0\", or \"swtpm:host=127.0.0.1,port=PORT\" for a software TPM on this machine";
        Self {
            directory: section.path("directory", "/var/lib/salama-keeper"),
            tpm: section.text("tpm", Tcti("device:/dev/tpmrm0".to_owned()), rule, Tcti::parse),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_or_a_software_tpm_of_this_machine_is_taken() {
        for text in ["device:/dev/tpmrm0", "device:/dev/tpm0", "swtpm:host=127.0.0.1,port=2321"] {
            assert_eq!(Tcti::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "cmd:sh", "device:/dev/tpm/../sda", "swtpm:host=10.0.0.1,port=2321", "swtpm:host=127.0.0.1,port=99999", "mssim"] {
            assert_eq!(Tcti::parse(text), None, "{text}");
        }
    }
}
