//! Ages: `I am 12`, `twelve years old`, `ana miaka kumi na miwili`, `aged 9`, and the answer to `how old are you?`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `merge`.

use regex::{Captures, Regex};

use super::numbers::Numbers;
use super::patterns::compile;
use crate::ipc::transcript::EntityKind;
use crate::worker::text::finding::{Finding, Rank};
use crate::worker::text::view::View;

/// What is "twelve" without being a person of that age.
const THINGS: [&str; 19] = [
    "number", "time", "total", "price", "answer", "code", "line", "this", "that", "it", "there", "room", "class", "cost", "grade", "what",
    "which", "helpline", "score",
];

/// Patterns for ages; the group `x` is the number.
pub struct Ages(Vec<Regex>);

impl Ages {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub fn new(numbers: &Numbers) -> Result<Self, regex::Error> {
        let word = numbers.word_pattern();
        let number = format!(r"(?P<x>\b(?:\d{{1,2}}|1[01]\d|{word}(?:[\s-](?:na\s)?{word})?))\b");
        // What may follow a bare number when it is an age, so that "I am 12 kilometres away" is none.
        let end =
            r"(?:\s*$|\s*[.,;:?!)]|\s+(?:and|but|now|so|or|because|when|this|next|already|today|years?|yrs?|na|lakini|sasa|tu|mwaka)\b)";
        let unit = r"(?:years?|yrs?|months?|weeks?|days?)";
        let subject = r"(?:i am|i'm|i was|i'll be|she is|she's|he is|he's|he was|she was|they are|they're|we are|who is|who's|child is|baby is|girl is|boy is|son is|daughter is|sister is|brother is|niece is|nephew is|cousin is|wife is|husband is|friend is|kid is|is only|am only|is just|just turned|turned|turning|turns|is about|am about|am almost|is almost|is now)";
        [
            format!(r"{number}[\s-]*{unit}[\s-]*(?:old|of age)\b"),
            format!(r"{number}\s*(?:y/o|yo|y\.o\.)\b"),
            format!(r"\b(?:aged?|age is|age of|age at|at the age of|aged about|under the age of|umri wa|umri wake ni|umri wangu ni|umri)\s*[:,]?\s*(?:miaka\s)?{number}"),
            format!(r"\b{subject}\s+(?:just\s|only\s|about\s|almost\s|now\s)?{number}{end}"),
            format!(r"(?:^|\b(?P<subject>[\p{{L}}']+)\s)is\s{number}\s*(?:years?\b|[.?!,]|$)"),
            format!(r"\b(?:nina|ana|una|wana|tuna|nilikuwa na|alikuwa na|mwenye|wenye|akiwa na|nikiwa na|wa|huyu ana|na umri wa|ni wa|kama)\s+miaka\s+(?:kama\s|karibu\s)?{number}"),
            format!(r"\b(?:how old|what age|what is (?:your|her|his) age|miaka mingapi|umri gani|umri wako|quel âge)\b[^.?!]{{0,40}}[.?!,]?(?:\s[\p{{L}}',]+){{0,6}}?\s{number}"),
            format!(r"\b(?:j'ai|il a|elle a|âgée? de)\s{number}\s?ans\b"),
            format!(r"\b(?:emyaka|imyaka|myaka)\s{number}"),
            format!(r"\b(?:boy|girl|child|son|daughter|sister|brother|niece|nephew|cousin|kid|baby|mtoto|msichana|mvulana)\s*[,(]\s*{number}\s*[,).;]"),
        ]
        .iter()
        .map(|pattern| compile(pattern))
        .collect::<Result<Vec<Regex>, regex::Error>>()
        .map(Self)
    }

    /// Ages in `view`. Only the number is the entity: `[AGE_1] years old` still reads.
    pub fn find(&self, view: &View) -> Vec<Finding> {
        let of_a_person = |captures: &Captures<'_>| captures.name("subject").is_none_or(|word| !THINGS.contains(&word.as_str()));
        let captures = self.0.iter().flat_map(|pattern| pattern.captures_iter(view.lower()));
        let matches = captures.filter(of_a_person).filter_map(|captures| captures.name("x"));
        let not_the_time = |end: usize| {
            !view.lower().get(end..).is_some_and(|rest| {
                rest.starts_with([':', '%'])
                    || rest.starts_with(".") && rest.get(1..2).is_some_and(|c| c.bytes().all(|b| b.is_ascii_digit()))
            })
        };
        matches
            .filter(|found| not_the_time(found.end()))
            .map(|found| Finding::of(view.lower(), EntityKind::Age, Rank::Rule, found.range()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let view = View::new(text);
        let mut found: Vec<String> = Ages::new(&Numbers::build())
            .unwrap()
            .find(&view)
            .into_iter()
            .filter_map(|f| view.text().get(f.range).map(str::to_owned))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn ages_are_found_in_figures_and_words() {
        for (text, age) in [
            ("I am 12.", "12"),
            ("I'm twelve years old", "twelve"),
            ("she is eleven", "eleven"),
            ("My daughter is eleven.", "eleven"),
            ("a 14-year-old girl", "14"),
            ("aged 9 and", "9"),
            ("a boy, 7, from", "7"),
            ("he just turned thirty-five", "thirty-five"),
            ("six months old", "six"),
            ("How old are you? I am turning 15 now", "15"),
            ("How old is she? Um, she is like ten", "ten"),
            ("ana miaka kumi na miwili", "kumi na miwili"),
            ("Nina miaka 13", "13"),
            ("mtoto wa miaka saba", "saba"),
            ("Una miaka mingapi? Kumi na tatu.", "Kumi na tatu"),
            ("umri wake ni miaka 8", "8"),
            ("j'ai 12 ans", "12"),
            ("٣ years old", "3"),
        ] {
            assert_eq!(found(text), [age], "{text}");
        }
    }

    #[test]
    fn other_numbers_are_no_ages() {
        for clean in [
            "I am 12 kilometres away",
            "the number is 116.",
            "it is 5 o'clock",
            "the bus is 10:30",
            "he paid 500 shillings",
            "two years ago",
            "I was one of them",
            "for three years",
            "miaka miwili iliyopita",
            "it is 5.30",
            "he is 100% sure",
            "Class 6 pupils",
        ] {
            assert_eq!(found(clean), Vec::<String>::new(), "{clean}");
        }
    }
}
