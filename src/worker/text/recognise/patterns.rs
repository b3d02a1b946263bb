//! Recognisers that are one pattern and one check: e-mail, web and IP addresses, IBAN, document numbers, plates, secrets.
//! Trusts: nothing; the patterns run in time linear in the text.
//! Touches: nothing.
//! Next: `merge`.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex::{Captures, Regex};

use super::checks::is_iban;
use crate::ipc::transcript::EntityKind;
use crate::worker::text::finding::{Finding, Rank};
use crate::worker::text::view::View;

/// Endings that make `word.word` an address in running text.
const ENDINGS: &str = r"(?:com|org|net|info|edu|gov|int|io|africa|biz|me|app|dev|online|site|xyz|co|ac|go|or|ke|tz|ug|rw|bi|so|et|ss|cd|uk|fr|us|in|za|ng|gh)";

/// Whether a match is what its pattern stands for; gives the key.
type Check = fn(&str) -> Option<String>;

struct Rule {
    kind: EntityKind,
    rank: Rank,
    pattern: Regex,
    check: Check,
}

/// The one-pattern rules. A pattern marks its find with the group `x` when its context is not part of it.
pub struct Patterns(Vec<Rule>);

impl Patterns {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        let local = r"[\p{L}\p{N}][\p{L}\p{N}._%+'-]*";
        let said_local = r"(?:(?:[a-z0-9] ){1,30}[a-z0-9]|[\p{L}\p{N}._%+-]+(?:\s(?:dot|nukta|point|underscore|dash|hyphen|plus)\s[\p{L}\p{N}._%+-]+){0,4})";
        let at = r"\s*(?:[\(\[\{<]\s*at\s*[\)\]\}>]|@)\s*";
        let dot = r"(?:\s*[\(\[\{<]\s*(?:dot|\.)\s*[\)\]\}>]\s*|\s(?:dot|nukta|point)\s|\.\s?)";
        let provider = r"(?:g\s?mail|yahoo|hotmail|outlook|icloud|live|proton(?:mail)?|ymail|aol|zoho)";
        let rules: [(EntityKind, Rank, String, Check); 18] = [
            (EntityKind::Email, Rank::Checked, format!(r"{local}@[\p{{L}}\p{{N}}-]+(?:\.[\p{{L}}\p{{N}}-]+)+"), email),
            (EntityKind::Email, Rank::Checked, format!(r"{said_local}{at}[\p{{L}}\p{{N}}-]+(?:{dot}[\p{{L}}\p{{N}}-]+){{0,3}}{dot}{ENDINGS}\b"), email),
            (
                EntityKind::Email,
                Rank::Checked,
                format!(r"{said_local}\s(?:at|kwenye|arobase)\s(?:[\p{{L}}\p{{N}}-]+\s?)(?:\s(?:dot|nukta|point)\s[\p{{L}}\p{{N}}-]+){{0,3}}\s(?:dot|nukta|point)\s{ENDINGS}\b"),
                email,
            ),
            (EntityKind::Email, Rank::Checked, format!(r"{said_local}\s(?:at|kwenye|arobase)\s{provider}{dot}{ENDINGS}(?:{dot}{ENDINGS})?\b"), email),
            (
                EntityKind::Email,
                Rank::Checked,
                format!(r"\b(?:e-?mail|barua pepe)\b[^.!?]{{0,40}}?\s(?P<x>{said_local}\s(?:at|kwenye)\s[\p{{L}}\p{{N}}-]+(?:{dot}[\p{{L}}\p{{N}}-]+){{0,2}}{dot}{ENDINGS})\b"),
                email,
            ),
            (EntityKind::Url, Rank::Checked, r#"(?:https?|ftp)://[^\s<>"]+|\bwww\.[^\s<>"]+"#.to_owned(), plain),
            (EntityKind::Url, Rank::Checked, format!(r#"\b[\p{{L}}\p{{N}}](?:[\p{{L}}\p{{N}}-]*[\p{{L}}\p{{N}}])?(?:\.[\p{{L}}\p{{N}}-]+)*\.{ENDINGS}\b(?:/[^\s<>"]*)?"#), url),
            (EntityKind::Url, Rank::Checked, r"\b(?:w\s?w\s?w|www)\s(?:dot|nukta)\s[\p{L}\p{N}-]+(?:\s(?:dot|nukta)\s[\p{L}\p{N}-]+){1,3}(?:\sslash\s[\p{L}\p{N}._-]+)*".to_owned(), plain),
            (EntityKind::Url, Rank::Checked, format!(r"\b[\p{{L}}\p{{N}}-]+\s(?:dot|nukta)\s{ENDINGS}(?:\s(?:dot|nukta)\s{ENDINGS})?\b(?:\sslash\s[\p{{L}}\p{{N}}._-]+)*"), plain),
            // Four of a dictated number's digits can be an address too: the longer finding counts.
            (EntityKind::IpAddress, Rank::Rule, r"\d{1,3}(?:(?:\.|\sdot\s)\d{1,3}){3}".to_owned(), ipv4),
            (EntityKind::IpAddress, Rank::Checked, r"[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*".to_owned(), ipv6),
            (EntityKind::BankAccount, Rank::Checked, r"\b[a-z]{2}\s?\d{2}(?:[\s-]?[a-z0-9]){11,30}".to_owned(), iban),
            (EntityKind::NationalId, Rank::Rule, r"\bc[mf](?:[\s-]?[a-z0-9]){12}\b".to_owned(), ugandan_id),
            (
                EntityKind::Passport,
                Rank::Rule,
                r"\b(?:passport|pasipoti|paspoti|pasiporo|travel document|hati ya kusafiria|passeport)\b[^.!?]{0,30}?(?P<x>\b[a-z]{1,2}(?:[\s-]?\d){6,8})\b".to_owned(),
                compact,
            ),
            (EntityKind::Other, Rank::Rule, r"\b(?:k[a-z]{2}|u[a-z]{2}|r[a-z]{2})\s?\d{3}\s?[a-z]\b|\bt\s?\d{3}\s?[a-z]{3}\b".to_owned(), compact),
            (EntityKind::Other, Rank::Hint, r"[\p{L}\p{N}_]*\d{7,}[\p{L}\p{N}_]*".to_owned(), glued),
            (
                EntityKind::Other,
                Rank::Rule,
                r"\b(?:password|passcode|pass code|pin(?: code| number)?|nywila|neno la siri|namba ya siri|nambari ya siri|mot de passe)(?:\s(?:yangu|yake|yako))?(?:\s(?:is|ni|est)|:|\s?=)\s*(?P<x>\S*[^\s.,;!?])".to_owned(),
                plain,
            ),
            (EntityKind::Other, Rank::Rule, r"(?:^|[\s(,:])(?P<x>@[\p{L}\p{N}_][\p{L}\p{N}_.]{1,29}[\p{L}\p{N}_])".to_owned(), plain),
        ];
        let compiled = rules.into_iter().map(|(kind, rank, pattern, check)| Ok(Rule { kind, rank, pattern: compile(&pattern)?, check }));
        compiled.collect::<Result<Vec<Rule>, regex::Error>>().map(Self)
    }

    /// Everything in `view` that a pattern takes.
    pub fn find(&self, view: &View) -> Vec<Finding> {
        self.0.iter().flat_map(|rule| rule.pattern.captures_iter(view.lower()).filter_map(|captures| rule.judge(&captures))).collect()
    }
}

impl Rule {
    fn judge(&self, captures: &Captures<'_>) -> Option<Finding> {
        let whole = captures.name("x").or_else(|| captures.get(0))?;
        // The shape may have run on past the end of a checked number: the longest start that satisfies the check counts.
        let mut text = whole.as_str().trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '\'', '"', '-']);
        loop {
            if let Some(key) = (self.check)(text) {
                return Some(Finding { kind: self.kind, rank: self.rank, range: whole.start()..whole.start() + text.len(), key });
            }
            let shorter = text.rfind(|c: char| c.is_whitespace() || c == '-')?;
            text = text.get(..shorter)?.trim_end();
        }
    }
}

/// Compiles with a small cache: there are many patterns and a child's memory is bounded.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).dfa_size_limit(512 * 1024).build()
}

fn plain(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn compact(text: &str) -> Option<String> {
    Some(text.chars().filter(|c| c.is_alphanumeric()).collect())
}

/// Seven digits or more that letters cling to.
fn glued(text: &str) -> Option<String> {
    text.contains(|c: char| !c.is_ascii_digit()).then(|| text.to_owned())
}

/// `amina dot w at example dot org` is the same address as `amina.w@example.org`.
fn email(text: &str) -> Option<String> {
    let mut key = String::new();
    for word in text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>')) {
        key.push_str(match word {
            "at" | "kwenye" | "arobase" => "@",
            "dot" | "nukta" | "point" => ".",
            "underscore" => "_",
            "dash" | "hyphen" => "-",
            "plus" => "+",
            other => other,
        });
    }
    Some(key)
}

/// `word.word` is an address unless a sentence simply lacks its space, as in `home.In`.
fn url(text: &str) -> Option<String> {
    let host = text.split('/').next()?;
    let ending = host.rsplit('.').next()?;
    let short_word =
        matches!(ending, "me" | "so" | "in" | "or" | "go" | "us" | "co" | "ac") && host.split('.').count() == 2 && host == text;
    let number = host.split('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    (!short_word && !number).then(|| text.to_owned())
}

fn ipv4(text: &str) -> Option<String> {
    text.replace(" dot ", ".").parse::<Ipv4Addr>().ok().map(|address| address.to_string())
}

fn ipv6(text: &str) -> Option<String> {
    text.parse::<Ipv6Addr>().ok().filter(|address| !address.is_unspecified()).map(|address| address.to_string())
}

fn iban(text: &str) -> Option<String> {
    let compact = compact(text)?.to_uppercase();
    is_iban(&compact).then_some(compact)
}

fn ugandan_id(text: &str) -> Option<String> {
    let compact = compact(text)?;
    (compact.len() == 14 && compact.bytes().filter(u8::is_ascii_digit).count() >= 5).then_some(compact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(EntityKind, String)> {
        let view = View::new(text);
        let mut all = Patterns::new().unwrap().find(&view);
        all.sort_by_key(|finding| (finding.range.start, std::cmp::Reverse(finding.range.end), finding.rank));
        let mut end = 0;
        all.retain(|finding| {
            let apart = end <= finding.range.start;
            end = end.max(finding.range.end);
            apart
        });
        all.into_iter().map(|f| (f.kind, text.get(view.original(&f.range).unwrap()).unwrap().to_owned())).collect()
    }

    fn assert_finds(kind: EntityKind, table: &[(&str, &str)]) {
        for (text, what) in table {
            assert_eq!(found(text), [(kind, (*what).to_owned())], "{text}");
        }
    }

    #[test]
    fn e_mail_addresses_are_found_as_written_and_as_dictated() {
        assert_finds(
            EntityKind::Email,
            &[
                ("write to amina.w+x@example.co.ke.", "amina.w+x@example.co.ke"),
                ("it is amina at example dot org, thanks", "amina at example dot org"),
                ("amina dot wanjiku at gmail dot com", "amina dot wanjiku at gmail dot com"),
                ("amina (at) example (dot) org", "amina (at) example (dot) org"),
                ("amina[at]example.org", "amina[at]example.org"),
                ("a m i n a at gmail.com", "a m i n a at gmail.com"),
                ("my email is amina at example.org", "amina at example.org"),
                ("аmina@example.org", "аmina@example.org"),
                ("amina\u{200B}@exam\u{AD}ple.org", "amina\u{200B}@exam\u{AD}ple.org"),
                ("barua pepe yangu ni juma kwenye yahoo nukta com", "juma kwenye yahoo nukta com"),
            ],
        );
    }

    #[test]
    fn web_addresses_are_found() {
        assert_finds(
            EntityKind::Url,
            &[
                ("see https://example.org/a?b=c.", "https://example.org/a?b=c"),
                ("see www.example.co.ke now", "www.example.co.ke"),
                ("on facebook.com/amina.w he", "facebook.com/amina.w"),
                ("w w w dot example dot org", "w w w dot example dot org"),
            ],
        );
    }

    #[test]
    fn ip_addresses_must_parse() {
        assert_finds(
            EntityKind::IpAddress,
            &[
                ("from 192.168.1.20, yes", "192.168.1.20"),
                ("at 2001:db8::1 now", "2001:db8::1"),
                ("at 10 dot 0 dot 0 dot 1", "10 dot 0 dot 0 dot 1"),
            ],
        );
        for clean in ["version 1.2.3", "999.1.1.1", "at 10:30:15 today", "std::net", "a :: b"] {
            assert_eq!(found(clean), [], "{clean}");
        }
    }

    #[test]
    fn account_and_document_numbers_are_found() {
        assert_finds(EntityKind::BankAccount, &[("pay GB29 NWBK 6016 1331 9268 19 today", "GB29 NWBK 6016 1331 9268 19")]);
        assert_finds(EntityKind::NationalId, &[("NIN CM9501234567AB.", "CM9501234567AB"), ("cf 95012345 67ab", "cf 95012345 67ab")]);
        assert_finds(EntityKind::Passport, &[("passport number AK0123456", "AK0123456"), ("my passport is B 123 4567", "B 123 4567")]);
        assert_finds(
            EntityKind::Other,
            &[("car KBC 123A", "KBC 123A"), ("my password is Simba-99!", "Simba-99"), ("follow @amina_w", "@amina_w")],
        );
        assert_eq!(found("GB29 NWBK 6016 1331 9268 18"), []);
    }

    #[test]
    fn ordinary_sentences_are_left_alone() {
        for clean in ["I was at home.So I ran", "look at me dot", "meet at school at ten", "he paid 3.5 million", "at the end. In town"] {
            assert_eq!(found(clean), [], "{clean}");
        }
    }
}
