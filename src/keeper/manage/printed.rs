//! Codes and shares: made, shown once, typed again from the paper, and only then in the file.
//! Trusts: nothing but what was typed again.
//! Touches: the channel to the console, the key directory.
//! Next: `unlock` opens by them.

use ring::rand::{SecureRandom, SystemRandom};

use crate::base::clock::Clock;
use crate::ipc::keyslots::{KeysReport, Sheet, SheetSort, Wanted};
use crate::keeper::code::{self, Sort};
use crate::keeper::epoch::Epoch;
use crate::keeper::keyslots::{Kind, SharesSlot};
use crate::keeper::random::RandomError;
use crate::keeper::recovery::{self, Carried};
use crate::keeper::shares::{self, Share, join};
use crate::keeper::slots::random;

use super::book::Book;
use super::unlock::{open_by_code, read_share};
use super::{Desk, ManageError};

/// What erasing a call cannot reach.
const LIMIT: &str = "Mind: this paper and a copy of the disk from before a call was erased open that call together; `salama keys rotate --recovery`, \
    and destroying the old paper, ends that";

impl<C: Clock> Desk<'_, C> {
    pub(super) fn add_code(&self, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open(with, None)?;
        let kind = self.new_code(&book, book.keyslots.next)?;
        self.add_printed(book.keyslots.add(kind, self.now()), book)
    }

    pub(super) fn add_shares(&self, threshold: u8, count: u8, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open(with, None)?;
        let kind = self.new_shares(&book, book.keyslots.next, threshold, count)?;
        self.add_printed(book.keyslots.add(kind, self.now()), book)
    }

    fn add_printed(&self, added: Result<u32, crate::keeper::keyslots::KeyslotsError>, mut book: Book) -> Result<KeysReport, ManageError> {
        let id = added?;
        let kind = book.keyslots.slot(id).map(|slot| slot.kind.word());
        book.lines.announce(kind, Some(id))?;
        book.save()?;
        book.lines.done();
        let left = self.settle(&mut book)?;
        Ok(self.report(&book, format!("slot {id} is made; it opened by what was typed. {LIMIT}{left}")))
    }

    /// A new secret for a slot that there is.
    pub(super) fn renew(&self, book: &mut Book, id: u32, kind: &Kind) -> Result<(), ManageError> {
        let new = match kind {
            Kind::Tpm(slot) => return self.make_again(book, Some(id), slot.policy.clone(), false).map(|_| ()),
            Kind::Recovery(_) => self.new_code(book, id)?,
            Kind::Shares(slot) => self.new_shares(book, id, slot.threshold, slot.count)?,
        };
        book.lines.announce(Some(new.word()), Some(id))?;
        book.keyslots.exchange(id, new, self.now())?;
        book.save()?;
        book.lines.done();
        Ok(())
    }

    fn new_code(&self, book: &Book, id: u32) -> Result<Kind, ManageError> {
        let secret = random()?;
        let slot = recovery::encrypt(recovery::public_key(secret.expose()), id, &book.root_key, &book.epochs_for_paper()?)?;
        self.show(Sheet { sort: SheetSort::Code, slot: id, text: code::write(Sort::Code, secret.expose()) })?;
        // From here on only the paper counts.
        drop(secret);
        let opened = self.ask_until(Wanted::Again { number: 1 }, None, |typed| open_by_code(&slot, id, typed))?;
        if same(&opened, book) { Ok(Kind::Recovery(slot)) } else { Err(ManageError::DoesNotOpen) }
    }

    fn new_shares(&self, book: &Book, id: u32, threshold: u8, count: u8) -> Result<Kind, ManageError> {
        let secret = random()?;
        let mut set = [0; 2];
        SystemRandom::new().fill(&mut set).map_err(|_| RandomError)?;
        let set = u16::from_be_bytes(set);
        let parts = shares::split(secret.expose(), threshold, count, set)?;
        let encrypted = recovery::encrypt(recovery::public_key(secret.expose()), id, &book.root_key, &book.epochs_for_paper()?)?;
        drop(secret);
        let slot = SharesSlot { encrypted, threshold, count, set };
        // Each trustee's in turn: the paper is written and typed before the next is shown.
        let mut typed: Vec<Share> = Vec::new();
        for (number, part) in (1_u8..).zip(parts) {
            let sort = SheetSort::Share { number, threshold, count };
            self.show(Sheet { sort, slot: id, text: code::write(Sort::Share, &part) })?;
            let share = self.ask_until(Wanted::Again { number }, None, |words| {
                let share = read_share(&slot, &typed, words)?;
                if share.number == number { Ok(share) } else { Err(format!("this is share {}, not {number}", share.number)) }
            })?;
            typed.push(share);
        }
        // Any so many are as good as any others; every share is in one of these.
        for some in typed.windows(usize::from(threshold)) {
            let opened = recovery::decrypt(&slot.encrypted, id, &join(some)?)?;
            if !same(&opened, book) {
                return Err(ManageError::DoesNotOpen);
            }
        }
        Ok(Kind::Shares(slot))
    }
}

/// Whether a paper opens what the book has.
fn same(opened: &Carried, book: &Book) -> bool {
    let equal = |(one, other): (&Epoch, &Epoch)| one.number() == other.number() && one.secret().expose() == other.secret().expose();
    opened.root_key.expose() == book.root_key.expose()
        && opened.epochs.len() == book.epochs.len()
        && opened.epochs.iter().zip(&book.epochs).all(equal)
}
