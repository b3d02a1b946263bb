//! The console's keeper: issues certificates for an operator at the machine.
//! Trusts: the keeper.
//! Touches: the channel to the keeper.
//! Next: `cli::enrol`.

use rustls_pki_types::CertificateDer;

use crate::ipc::channel::Channel;
use crate::ipc::keeper::KeeperRequest;

use super::{Keeper, KeeperError};

/// The handle to a keeper that was started with `salama-keeper console`.
pub struct Console {
    keeper: Keeper,
    ca: CertificateDer<'static>,
}

impl Console {
    /// Waits for the greeting.
    ///
    /// # Errors
    /// As [`Keeper::connect`].
    pub fn connect(channel: Channel) -> Result<Self, KeeperError> {
        let (keeper, greeting) = Keeper::connect(channel)?;
        Ok(Self { keeper, ca: greeting.client_ca })
    }

    /// The box's certificate authority.
    pub const fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// A client's chain, leaf first, for the public key of `csr_der` (PKCS#10, DER).
    ///
    /// # Errors
    /// [`KeeperError`]; `Denied(BadRequest)` for a role, name, validity or request that is out of range.
    pub fn issue(&self, csr_der: &[u8], role: &str, name: &str, valid_days: u16) -> Result<Vec<CertificateDer<'static>>, KeeperError> {
        let request =
            KeeperRequest::IssueCertificate { csr_der: csr_der.to_vec(), role: role.to_owned(), name: name.to_owned(), valid_days };
        self.keeper.issue(&request)
    }
}
