//! What a child makes of a call: utterances, their words, and what was redacted from them.
//! Trusts: nothing; the texts come from a stranger's voice through a process that may be taken over.
//! Touches: nothing.
//! Next: `job` seals it, `api` renders it.

use serde::{Deserialize, Serialize};

/// One word with its time in the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Word {
    /// Start in milliseconds from the start of the call.
    pub start_ms: u32,
    /// End in milliseconds from the start of the call; never before `start_ms`.
    pub end_ms: u32,
    /// The word with its punctuation, without spaces around it.
    pub text: String,
    /// Probability that the recogniser gave the word, 0..=1.
    pub confidence: f32,
}

/// A stretch of speech on one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Utterance {
    /// Channel of the recording, counted from 0.
    pub channel: u8,
    /// Start in milliseconds from the start of the call.
    pub start_ms: u32,
    /// End in milliseconds from the start of the call; never before `start_ms`.
    pub end_ms: u32,
    /// ISO 639-1 code of the spoken language as the recogniser heard it.
    pub language: String,
    /// Mean probability of the words, 0..=1.
    pub confidence: f32,
    /// The words in order of time. The utterance's text is these joined by one space.
    pub words: Vec<Word>,
}

impl Utterance {
    /// The words joined by one space.
    pub fn text(&self) -> String {
        let words: Vec<&str> = self.words.iter().map(|word| word.text.as_str()).collect();
        words.join(" ")
    }
}

/// A kind of personal information that is redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A person's name.
    Person,
    /// A place, address or part of one.
    Location,
    /// A telephone number.
    Phone,
    /// An e-mail address.
    Email,
    /// A web address.
    Url,
    /// An IP address.
    IpAddress,
    /// A payment card number with a valid Luhn checksum.
    Card,
    /// An IBAN or bank account number.
    BankAccount,
    /// A national identity number.
    NationalId,
    /// A passport number.
    Passport,
    /// A date of birth.
    DateOfBirth,
    /// A person's age.
    Age,
    /// Anything else that the recogniser takes for personal: user names, licence plates, secrets.
    Other,
}

impl EntityKind {
    /// The word in a placeholder: `PERSON` in `[PERSON_1]`.
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Person => "PERSON",
            Self::Location => "LOCATION",
            Self::Phone => "PHONE",
            Self::Email => "EMAIL",
            Self::Url => "URL",
            Self::IpAddress => "IP_ADDRESS",
            Self::Card => "CARD",
            Self::BankAccount => "BANK_ACCOUNT",
            Self::NationalId => "NATIONAL_ID",
            Self::Passport => "PASSPORT",
            Self::DateOfBirth => "DATE_OF_BIRTH",
            Self::Age => "AGE",
            Self::Other => "OTHER",
        }
    }
}

/// One redacted stretch of text. Sealed with the clear text; only counts of kinds are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// What it is.
    pub kind: EntityKind,
    /// Number of the placeholder in this call: the 1 of `[PERSON_1]`. The same text has the same number.
    pub number: u32,
    /// First byte in the clear text of its utterance (or of the whole text, for text redaction).
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// How often a kind was redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EntityCount {
    /// What.
    pub kind: EntityKind,
    /// How many stretches of text.
    pub count: u32,
}
