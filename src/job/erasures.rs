//! What is kept of erased calls: who asked, when, which sorts of data, and once it is final the keeper's certificate.
//! Trusts: the keeper, to certify no erasure whose epoch it has not destroyed.
//! Touches: the store, the keeper.
//! Next: [`super::epoch`] makes erasures final; [`super::calls`] shows them.

use std::collections::BTreeMap;

use super::border::KeyError;
use super::desk::{Desk, DeskError, record_fault};
use super::header::StoredErasure;
use super::spec::{ErasureView, Scope};
use crate::audit::{self, Event};
use crate::base::ids::CallId;
use crate::ipc::keeper::{EpochReply, EpochRequest, ErasureClaim, KeeperDenial};
use crate::record::envelope::SealedRecord;
use crate::record::schema::{Slot, Table};
use crate::record::store::{Batch, Outcome};

/// Certificates that are stored by one commit.
const AT_ONCE: usize = 1000;

/// The erasures without a certificate, and the epochs that must be destroyed before they get one. So that a move need not open all that
/// were ever made.
pub(super) type OpenErasures = BTreeMap<CallId, u32>;

impl Desk {
    /// At the start: those that an earlier life left open.
    pub(super) fn open_erasures(&self) -> Result<OpenErasures, DeskError> {
        let mut open = OpenErasures::new();
        for (slot, sealed) in self.store.view(|snapshot| snapshot.all(Table::Erasure))? {
            match self.index.envelope().open_value::<StoredErasure>(&slot, &sealed) {
                Ok(StoredErasure { certificate: None, epoch, .. }) => open.extend(slot.call().map(|call| (call, epoch))),
                Ok(_) => {}
                // It would hold up all others.
                Err(error) => record_fault("read erasure", slot.call(), &error),
            }
        }
        Ok(open)
    }

    /// What is kept of an erased call.
    pub(super) fn erasure(&self, scope: &Scope, call: CallId) -> Result<ErasureView, DeskError> {
        let (erasure, _) = self.stored_erasure(call)?;
        match scope {
            Scope::OwnedBy(owner) if *owner != erasure.owner => Err(DeskError::NotFound),
            _ => Ok(ErasureView::new(call, erasure.erased, erasure.epoch, erasure.certificate, self.moves.progress())),
        }
    }

    fn stored_erasure(&self, call: CallId) -> Result<(StoredErasure, SealedRecord), DeskError> {
        let slot = Slot::erasure(call);
        let sealed = self.store.get(&slot)?.ok_or(DeskError::NotFound)?;
        Ok((self.index.envelope().open_value(&slot, &sealed)?, sealed))
    }

    /// Certificates for what was erased before the epoch `number`, in as few commits as may be. One that cannot be had holds up no other;
    /// at the keeper's limit those that there are are stored, and the rest is made as soon as it lets.
    pub(super) fn certify(&self, number: u32) -> Result<(), DeskError> {
        let due: Vec<CallId> = self.moves.open().iter().filter(|(_, epoch)| **epoch < number).map(|(call, _)| *call).collect();
        for some in due.chunks(AT_ONCE) {
            let (mut batch, mut certified, mut limit) = (Batch::new().freeing(), Vec::new(), None);
            for call in some {
                match self.certified(*call) {
                    Ok((before, erasure)) => {
                        let slot = Slot::erasure(*call);
                        let after = self.index.envelope().seal_value(&slot, &erasure)?;
                        batch = batch.require_unchanged(slot.clone(), before).put(slot, after);
                        certified.push((*call, erasure.epoch));
                    }
                    // It was erased while its key was wrapped anew, which nobody stored; the keeper knows it as alive until the next move.
                    Err(DeskError::Key(KeyError::Refused(KeeperDenial::EpochOutOfOrder))) => {
                        self.erasure_is_open(*call, number);
                        record_fault("certify erasure", Some(*call), &KeyError::Refused(KeeperDenial::EpochOutOfOrder));
                    }
                    Err(DeskError::Key(KeyError::RateLimited { wait })) => {
                        limit = Some(wait);
                        break;
                    }
                    Err(error @ (DeskError::Store(_) | DeskError::Key(KeyError::Unavailable))) => return Err(error),
                    Err(error) => record_fault("certify erasure", Some(*call), &error),
                }
            }
            // Nobody else writes them while it is this thread's turn.
            if self.store.commit(batch)? == Outcome::Committed {
                for (call, epoch) in certified {
                    self.moves.open().remove(&call);
                    audit::record(&Event::ErasureCertified { call, epoch });
                }
            }
            if let Some(wait) = limit {
                self.certificates_are_left(wait);
                break;
            }
        }
        Ok(())
    }

    fn certified(&self, call: CallId) -> Result<(SealedRecord, StoredErasure), DeskError> {
        let (mut erasure, sealed) = self.stored_erasure(call)?;
        let claim = ErasureClaim { call, erased: erasure.erased, classes: erasure.classes.clone(), epoch: erasure.epoch };
        let EpochReply::Certificate(certificate) = self.keys.epoch(EpochRequest::Certify(claim))? else {
            return Err(KeyError::Unavailable.into());
        };
        erasure.certificate = Some(certificate);
        Ok((sealed, erasure))
    }
}
