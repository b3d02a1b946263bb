//! The keeper's own hand under its lines: numbered, each bound to the one before, each signed.
//! Trusts: nothing.
//! Touches: the random number generator of the operating system, once.
//! Next: `journal` writes what comes out; `ipc::key_log` says the format and checks it.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::base::hex::hex;
use crate::base::secret::Secret;
use crate::ipc::keeper::StartId;
use crate::ipc::key_log::{CONTEXT, HEAD, SIGNATURE, digest_of};

use super::hierarchy::{DeriveError, KEY_BYTES, Purpose, Root};
use super::random::RandomError;

/// One start's chain of lines.
pub struct Chain {
    key: Ed25519KeyPair,
    start: StartId,
    next: u64,
    prev: [u8; 32],
}

/// A line that is signed, but not yet written.
pub struct SignedLine {
    /// Without a line feed.
    pub text: Vec<u8>,
    digest: [u8; 32],
}

impl Chain {
    /// A new one. Only the root key leads to its signing key, so only a keeper signs.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn begin(root: &Root) -> Result<Self, ChainError> {
        let mut start = StartId::default();
        SystemRandom::new().fill(&mut start).map_err(|_| RandomError)?;
        Self::of(&root.derive(Purpose::AuditSign)?, start)
    }

    /// Of this key.
    ///
    /// # Errors
    /// [`ChainError::Key`], which the seed's length excludes.
    pub fn of(seed: &Secret<KEY_BYTES>, start: StartId) -> Result<Self, ChainError> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| ChainError::Key)?;
        Ok(Self { key, start, next: 0, prev: [0; 32] })
    }

    /// This start.
    pub const fn start(&self) -> StartId {
        self.start
    }

    /// What its lines verify with.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.iter_mut().zip(self.key.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        key
    }

    /// Whether no line was written yet.
    pub const fn is_new(&self) -> bool {
        self.next == 0
    }

    /// How many were written.
    pub const fn lines(&self) -> u64 {
        self.next
    }

    /// The next line; `members` are those of a JSON object, without its braces.
    pub fn sign(&self, members: &str) -> SignedLine {
        let Self { key, start, next, prev } = self;
        let mut message = CONTEXT.to_vec();
        message.extend(format!("{HEAD}{}\",\"seq\":{next},\"prev\":\"{}\",{members}", hex(start), hex(prev)).into_bytes());
        let signature = key.sign(&message);
        let mut text = message.split_off(CONTEXT.len());
        text.extend(format!("{SIGNATURE}{}\"}}", hex(signature.as_ref())).into_bytes());
        SignedLine { digest: digest_of(&text), text }
    }

    /// The line is out: the next one follows it.
    pub const fn written(&mut self, line: &SignedLine) {
        self.next = self.next.saturating_add(1);
        self.prev = line.digest;
    }
}

/// Why no chain was begun.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The key.
    #[error("no key could be made that signs the keeper's lines")]
    Key,
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::ipc::key_log::{LogFault, Series, Verifier};

    /// A chain of a fixed key.
    pub fn chain(start: u8) -> Chain {
        Chain::of(&Secret::try_fill(|_| Ok::<(), ()>(())).unwrap(), [start; 16]).unwrap()
    }

    /// A chain from its begin to its end, as the start with this number.
    fn lines(start: u8, count: usize) -> Vec<Vec<u8>> {
        lines_of(Series::Daemon, start, count)
    }

    fn lines_of(of: Series, start: u8, count: usize) -> Vec<Vec<u8>> {
        let (word, own) = match of {
            Series::Daemon => ("daemon", start),
            Series::Console => ("console", start + 100),
        };
        let mut chain = chain(own);
        let before = if start > 1 { format!(",\"before\":\"{}\",\"lines\":2", hex(&[own - 1; 16])) } else { String::new() };
        let begun = format!("\"event\":\"chain_begun\",\"of\":\"{word}\",\"start\":{start}{before}");
        let used = std::iter::repeat_n("\"event\":\"key_use\"".to_owned(), count);
        let events = [begun].into_iter().chain(used).chain(["\"event\":\"chain_ended\"".to_owned()]);
        events
            .map(|event| {
                let line = chain.sign(&event);
                chain.written(&line);
                line.text
            })
            .collect()
    }

    fn faults(lines: &[Vec<u8>]) -> Vec<LogFault> {
        let mut verifier = Verifier::new(chain(0).public_key(), false);
        (1..).zip(lines).filter_map(|(number, line)| verifier.line(number, line).err()).collect()
    }

    fn verify(lines: &[Vec<u8>]) -> Result<crate::ipc::key_log::Report, LogFault> {
        let mut verifier = Verifier::new(chain(0).public_key(), false);
        for (number, line) in (1..).zip(lines) {
            verifier.line(number, line)?;
        }
        verifier.finish()
    }

    #[test]
    fn whole_chains_are_whole_and_lines_of_others_are_passed_over() {
        let both = [lines(1, 3), vec![b"another's".to_vec()], lines(2, 1)].concat();
        let report = verify(&both).unwrap();
        assert_eq!((report.chains, report.lines, report.others, report.without_end), (2, 8, 1, 0));
        assert_eq!(verify(&[]), Err(LogFault::Empty));
    }

    #[test]
    fn a_piece_that_another_left_before_a_line_takes_nothing_from_it() {
        let mut mixed = lines(1, 3);
        mixed[2] = [b"no line feed, {\"chain\":\"x".as_slice(), &mixed[2]].concat();
        assert_eq!(verify(&mixed).unwrap().lines, 5);
    }

    #[test]
    fn what_another_wrote_between_the_lines_hides_nothing_that_follows() {
        let mut mixed = lines(1, 5);
        mixed.remove(5);
        mixed.insert(1, b"{\"chain\":\"x".to_vec());
        mixed.insert(3, lines(9, 0)[0].iter().map(|byte| if *byte == b'9' { b'8' } else { *byte }).collect());
        let found = faults(&mixed);
        assert!(
            matches!(
                found[..],
                [LogFault::Damaged { line: 2 }, LogFault::Forged { line: 4, .. }, LogFault::Missing { line: 8, first: 5, last: 5 }]
            ),
            "{found:?}"
        );
    }

    #[test]
    fn a_line_that_is_missing_moved_or_doubled_is_named() {
        let whole = lines(1, 5);
        let without = |at: usize| [&whole[..at], &whole[at + 1..]].concat();
        assert_eq!(verify(&without(0)), Err(LogFault::HeadMissing { line: 1, seq: 1 }));
        assert_eq!(verify(&without(3)), Err(LogFault::Missing { line: 4, first: 3, last: 3 }));
        let mut swapped = whole.clone();
        swapped.swap(2, 3);
        assert_eq!(verify(&swapped), Err(LogFault::Missing { line: 3, first: 2, last: 2 }));
        let doubled = [&whole[..4], &whole[3..]].concat();
        assert_eq!(verify(&doubled), Err(LogFault::OutOfOrder { line: 5, seq: 3, expected: 4 }));
    }

    #[test]
    fn a_start_that_is_missing_doubled_moved_or_cut_is_named() {
        let [one, two, three] = [1, 2, 3].map(|start| lines(start, 4));
        assert!(verify(&[one.clone(), two.clone(), three.clone()].concat()).is_ok());
        assert_eq!(faults(&[one.clone(), three.clone()].concat()), [LogFault::StartsMissing { line: 7, first: 2, last: 2 }]);
        let doubled = [one.clone(), two.clone(), one.clone(), three.clone()].concat();
        assert_eq!(faults(&doubled), [LogFault::StartOutOfOrder { line: 13, start: 1, expected: 3 }]);
        let doubled = [one.clone(), two.clone(), two.clone(), three.clone()].concat();
        assert!(!faults(&doubled).is_empty());
        let swapped = [one.clone(), three.clone(), two.clone()].concat();
        assert_eq!(faults(&swapped).len(), 2);
        let cut = [one[..1].to_vec(), two.clone()].concat();
        assert_eq!(faults(&cut), [LogFault::CutOff { line: 2, start: 2, first: 1, last: 1 }]);
        let another = [lines(1, 1), three].concat();
        assert!(!faults(&another).is_empty());
    }

    #[test]
    fn the_consoles_chains_lie_between_the_daemons_and_are_counted_apart() {
        let (daemon, console) = (lines(1, 4), |start| lines_of(Series::Console, start, 1));
        let mixed = [daemon[..3].to_vec(), console(1), daemon[3..].to_vec(), console(2), lines(2, 1)].concat();
        let report = verify(&mixed).unwrap();
        assert_eq!((report.chains, report.without_end, report.faults), (4, 0, 0));
        let without = [daemon[..3].to_vec(), console(1), daemon[3..].to_vec(), console(3)].concat();
        assert_eq!(faults(&without), [LogFault::StartsMissing { line: 10, first: 2, last: 2 }]);
    }

    #[test]
    fn a_chain_whose_end_is_missing_is_counted_once_another_follows() {
        let cut = [lines(1, 5)[..4].to_vec(), lines(2, 1)].concat();
        assert_eq!(verify(&cut).unwrap().without_end, 1);
        let mixed = [lines(1, 5)[..4].to_vec(), lines(2, 1), lines(1, 5)[4..].to_vec()].concat();
        assert_eq!(verify(&mixed), Err(LogFault::HeadMissing { line: 8, seq: 4 }));
        let reopened = [lines(1, 0), lines(1, 5)[2..].to_vec()].concat();
        assert_eq!(verify(&reopened), Err(LogFault::Unlinked { line: 3, seq: 2 }));
    }

    #[test]
    fn any_bit_that_was_changed_is_found() {
        let whole = lines(1, 1);
        for bit in 0..whole[1].len() * 8 {
            let mut changed = whole.clone();
            changed[1][bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed).is_err(), "bit {bit}");
        }
        let mut cut = whole;
        cut[1].pop();
        assert_eq!(verify(&cut), Err(LogFault::Damaged { line: 2 }));
    }

    #[test]
    fn another_keys_lines_are_forged() {
        let other = Chain::of(
            &Secret::try_fill(|to| {
                to.fill(1);
                Ok::<(), ()>(())
            })
            .unwrap(),
            [1; 16],
        )
        .unwrap();
        let line = other.sign("\"event\":\"chain_begun\"").text;
        assert_eq!(verify(&[line]), Err(LogFault::Forged { line: 1, seq: 0 }));
    }

    #[test]
    fn a_part_may_begin_in_the_middle_of_its_first_chain_only() {
        let mut verifier = Verifier::new(chain(0).public_key(), true);
        let (first, second) = (lines(1, 4), lines(2, 4));
        assert!(verifier.line(1, &first[3]).is_ok());
        assert!(verifier.line(2, &second[0]).is_ok());
        assert_eq!(verifier.line(3, &lines(3, 4)[3]), Err(LogFault::HeadMissing { line: 3, seq: 3 }));
    }
}
