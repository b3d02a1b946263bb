//! What a run of digits is: card, identity number, telephone, account, or a number that nobody needs to read in clear.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `merge`.

use regex::Regex;

use super::checks::{is_card, is_nida, is_rwandan_id, phone_strength};
use super::numbers::{Group, Numbers, Run};
use crate::ipc::transcript::EntityKind;
use crate::worker::text::finding::{Finding, Rank, after, before};
use crate::worker::text::view::View;

/// How far before a number its context words may stand, bytes.
const CONTEXT: usize = 64;
/// Digits from which a number is masked although nothing says what it is: longer than any count, price or year in a call.
const UNKNOWN_DIGITS: usize = 8;
/// Most groups that are tried as one number: 20 digits dictated one by one.
const GROUPS_MAX: usize = 24;

/// Rules over digit runs.
pub struct Figures {
    contexts: [(Regex, EntityKind); 5],
    money_before: Regex,
    money_after: Regex,
}

impl Figures {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            contexts: [
                (
                    Regex::new(
                        r"\b(?:national id(?:entity)?|id (?:card|number|no)|id(?:'s)? is|my id|his id|her id|identi(?:ty|fication)(?: card| number)?|kitambulisho|kipande|nida|nin|indangamuntu|huduma|endagamuntu|carte d'identité|birth certificate)\b",
                    )?,
                    EntityKind::NationalId,
                ),
                (
                    Regex::new(r"\b(?:passport|pasipoti|paspoti|pasiporo|travel document|hati ya kusafiria|passeport)\b")?,
                    EntityKind::Passport,
                ),
                (Regex::new(r"\b(?:account|a/c|acc|akaunti|iban|till|paybill|compte)\b")?, EntityKind::BankAccount),
                (
                    Regex::new(
                        r"\b(?:phone|telephone|mobile|cell|call|calls|called|dial|ring|reach|contact|whatsapp|text me|sms|simu|namba|nambari|piga|nipigie|essimu|telefone|telefoni|numéro|appel\w*|number)\b",
                    )?,
                    EntityKind::Phone,
                ),
                (Regex::new(r"\b(?:card|visa|mastercard|kadi)\b")?, EntityKind::Card),
            ],
            money_before: Regex::new(r"(?:ksh|kes|ugx|tsh|tzs|rwf|usd|shs|sh|\$|€|£|shillings|shilingi|silingi)\.?\s*$")?,
            money_after: Regex::new(
                r"^\s*(?:/[=-]|shillings?|shilingi|bob|ksh|kes|ugx|tzs|rwf|dollars?|francs?|people|persons|watu|km|kilomet\w*|metres?|percent|%|votes|views)",
            )?,
        })
    }

    /// Everything in `view` that is a number of somebody.
    pub fn find(&self, view: &View, numbers: &Numbers) -> Vec<Finding> {
        let mut found = Vec::new();
        for run in numbers.runs(view.lower()) {
            self.find_in_run(view, &run, &mut found);
        }
        found
    }

    fn find_in_run(&self, view: &View, run: &Run, found: &mut Vec<Finding>) {
        let mut from = 0;
        let mut rest_from = 0;
        while from < run.len() {
            match self.best_at(view, run, from) {
                Some((length, kind, rank)) => {
                    self.leftover(view, run.get(rest_from..from).unwrap_or_default(), found);
                    found.extend(run.get(from..from + length).and_then(|groups| make(view, groups, kind, rank)));
                    from += length;
                    rest_from = from;
                }
                None => from += 1,
            }
        }
        self.leftover(view, run.get(rest_from..).unwrap_or_default(), found);
    }

    /// The surest, then longest number that begins with the group at `from`: how many groups, and what it is.
    fn best_at(&self, view: &View, run: &Run, from: usize) -> Option<(usize, EntityKind, Rank)> {
        let groups = run.get(from..)?;
        let first = groups.first()?;
        let context = self.context(view, first.range.start);
        let mut digits = String::new();
        let mut best: Option<(usize, EntityKind, Rank, u8)> = None;
        for (length, group) in (1..=GROUPS_MAX).zip(groups) {
            if length > 1 && group.plus || digits.len() + group.digits.len() > 20 {
                break;
            }
            digits.push_str(&group.digits);
            let so_far = groups.get(..length)?;
            if let Some((kind, rank, strength)) = classify(&digits, so_far, context)
                && best.is_none_or(|(.., other)| strength >= other)
            {
                best = Some((length, kind, rank, strength));
            }
        }
        best.filter(|(length, ..)| !groups.get(..*length).is_some_and(|groups| self.is_money(view, groups)))
            .map(|(length, kind, rank, _)| (length, kind, rank))
    }

    /// Digits that no rule took. Long ones are masked all the same: better a price too many than a number too few.
    fn leftover(&self, view: &View, groups: &[Group], found: &mut Vec<Finding>) {
        let Some(first) = groups.first() else { return };
        let digits: usize = groups.iter().map(|group| group.digits.len()).sum();
        let all: String = groups.iter().map(|group| group.digits.as_str()).collect();
        let spoken = groups.iter().filter(|group| group.spoken).count() >= 6;
        let half_phone = digits >= 6 && (all.starts_with("07") || all.starts_with("01")) && groups.len() > 1;
        let kind = match self.context(view, first.range.start) {
            Some(EntityKind::Phone) if digits >= 7 => EntityKind::Phone,
            _ if half_phone || spoken && digits >= 7 => EntityKind::Phone,
            Some(kind) if digits >= UNKNOWN_DIGITS => kind,
            _ if digits >= UNKNOWN_DIGITS => EntityKind::Other,
            _ => return,
        };
        if !self.is_money(view, groups) && !is_calendar(view, groups) {
            found.extend(make(view, groups, kind, Rank::Rule));
        }
    }

    /// The nearest context word before `at`.
    fn context(&self, view: &View, at: usize) -> Option<EntityKind> {
        let text = before(view.lower(), at, CONTEXT);
        let places = self.contexts.iter().filter_map(|(pattern, kind)| pattern.find_iter(text).last().map(|found| (found.end(), *kind)));
        // `account number` and `id number` end in a word of their own kind's contexts and in a telephone's: the special one wins.
        places
            .map(|(end, kind)| if kind == EntityKind::Phone { (end.saturating_sub(" number".len() + 1), kind) } else { (end, kind) })
            .max_by_key(|(end, _)| *end)
            .map(|(_, kind)| kind)
    }

    fn is_money(&self, view: &View, groups: &[Group]) -> bool {
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return false };
        let grouped = view.lower().get(first.range.start..last.range.end).is_some_and(|text| {
            let mut parts = text.split(',');
            let head = parts.next().is_some_and(|head| (1..=3).contains(&head.len()) && !head.starts_with('0'));
            let tail: Vec<&str> = parts.collect();
            head && !tail.is_empty() && tail.iter().all(|part| part.len() == 3)
        });
        let digits: usize = groups.iter().map(|group| group.digits.len()).sum();
        (grouped || digits < 9)
            && !first.plus
            && !first.digits.starts_with('0')
            && (self.money_after.is_match(after(view.lower(), last.range.end, 24))
                || self.money_before.is_match(before(view.lower(), first.range.start, 24))
                || grouped)
    }
}

/// What these digits are, how sure that is, and how strong against another reading (greater wins).
fn classify(digits: &str, groups: &[Group], context: Option<EntityKind>) -> Option<(EntityKind, Rank, u8)> {
    let first = groups.first()?;
    let plus = first.plus;
    let written = groups.iter().all(|group| !group.spoken);
    let context_kind = context.filter(|kind| match kind {
        EntityKind::NationalId | EntityKind::BankAccount => (6..=20).contains(&digits.len()),
        EntityKind::Passport => (6..=9).contains(&digits.len()),
        EntityKind::Phone => false,
        _ => false,
    });
    if is_rwandan_id(digits) || is_nida(digits) {
        return Some((EntityKind::NationalId, Rank::Checked, 9));
    }
    if !plus && is_card(digits) {
        return Some((EntityKind::Card, Rank::Checked, 8));
    }
    let grouped = written && (2..=5).contains(&groups.len()) && groups.iter().all(|group| (2..=4).contains(&group.digits.len()));
    let phone = phone_strength(digits, plus, grouped, context == Some(EntityKind::Phone));
    match (context_kind, phone) {
        (Some(kind), 0..=6) => Some((kind, Rank::Rule, 5)),
        (_, 1..) => Some((EntityKind::Phone, Rank::Rule, phone)),
        _ => None,
    }
}

/// Years and dates are no identifiers by themselves.
fn is_calendar(view: &View, groups: &[Group]) -> bool {
    let year = |group: &Group| group.digits.len() == 4 && (group.digits.starts_with("19") || group.digits.starts_with("20"));
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return false };
    let dated = groups.len() == 3 && (year(first) || year(last)) && groups.iter().filter(|group| group.digits.len() <= 2).count() == 2;
    let slashed = view.lower().get(first.range.start..last.range.end).is_some_and(|text| !text.contains(' '));
    groups.iter().all(year) || dated && slashed
}

fn make(view: &View, groups: &[Group], kind: EntityKind, rank: Rank) -> Option<Finding> {
    let digits: String = groups.iter().map(|group| group.digits.as_str()).collect();
    let mut range = groups.first()?.range.start..groups.last()?.range.end;
    let opens = range.start.checked_sub(1).filter(|at| view.lower().get(*at..range.start) == Some("("));
    if let Some(open) = opens.filter(|_| view.lower().get(range.clone()).is_some_and(|text| text.contains(')'))) {
        range.start = open;
    }
    // The last nine digits are the subscriber's: +254712345678 and 0712345678 are one telephone.
    let from = if kind == EntityKind::Phone { digits.len().saturating_sub(9) } else { 0 };
    Some(Finding { kind, rank, range, key: digits.get(from..)?.trim_start_matches('0').to_owned() })
}
