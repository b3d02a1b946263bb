//! The language of a text: English, Swahili, Luganda, Somali, French or Arabic.
//! Trusts: the language models, which are compiled in.
//! Touches: memory; the models are unpacked at the first use, so `warm_up` uses them once before the fork server is confined.
//! Next: `api` shows the code and the confidence.

use lingua::{Language, LanguageDetector, LanguageDetectorBuilder};

use crate::ipc::worker::TextLanguage;

/// Letters from which a text says what language it is in.
const LETTERS_MIN: usize = 12;
/// Characters that are looked at: more of them do not change the answer.
const CHARS_MAX: usize = 4_000;
/// Smallest confidence of an answer, and smallest lead over the second language.
const CONFIDENCE_MIN: f64 = 0.5;
const LEAD_MIN: f64 = 0.15;

/// The languages that are told apart.
const LANGUAGES: [Language; 6] =
    [Language::Arabic, Language::English, Language::French, Language::Ganda, Language::Somali, Language::Swahili];

/// Tells languages apart.
pub struct LanguageJudge(LanguageDetector);

impl LanguageJudge {
    /// Builds the detector. Not with lingua's own preloading: that starts a thread pool, and a fork server has one thread.
    pub fn build() -> Self {
        Self(LanguageDetectorBuilder::from_languages(&LANGUAGES).build())
    }

    /// Unpacks every model, in this thread.
    pub fn warm_up(&self) {
        for text in
            ["good morning to all of you my friends", "habari za asubuhi rafiki yangu", "bonjour à tous mes amis", "صباح الخير يا أصدقائي"]
        {
            let _ = self.judge(text);
        }
    }

    /// The language of `text`; `None` when the text is short or unclear.
    pub fn judge(&self, text: &str) -> Option<TextLanguage> {
        let part: String = text.chars().take(CHARS_MAX).collect();
        if part.chars().filter(|c| c.is_alphabetic()).count() < LETTERS_MIN {
            return None;
        }
        let values = self.0.compute_language_confidence_values(part);
        let (language, confidence) = values.first().copied()?;
        let second = values.get(1).map_or(0.0, |(_, confidence)| *confidence);
        (confidence >= CONFIDENCE_MIN && confidence - second >= LEAD_MIN)
            .then(|| TextLanguage { code: language.iso_code_639_1().to_string().to_lowercase(), confidence: to_f32(confidence) })
    }
}

#[expect(clippy::as_conversions, reason = "a probability in 0..=1 has no From to f32; losing digits is meant")]
const fn to_f32(confidence: f64) -> f32 {
    confidence as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_languages_are_told_apart() {
        let judge = LanguageJudge::build();
        for (text, code) in [
            ("My father beats me every night when he comes home.", "en"),
            ("Baba yangu ananipiga kila usiku anaporudi nyumbani.", "sw"),
            ("Taata wange ankuba buli kiro ng'akomyewo awaka.", "lg"),
            ("Aabbahay habeen kasta ayuu i garaacaa markuu guriga yimaado.", "so"),
            ("Mon père me frappe tous les soirs quand il rentre à la maison.", "fr"),
            ("أبي يضربني كل ليلة عندما يعود إلى البيت", "ar"),
        ] {
            assert_eq!(judge.judge(text).map(|language| language.code).as_deref(), Some(code), "{text}");
        }
    }

    #[test]
    fn a_short_or_unclear_text_has_no_language() {
        let judge = LanguageJudge::build();
        for text in ["", "ok", "12345 67890 12345", "Juma, Hassan"] {
            assert_eq!(judge.judge(text), None, "{text}");
        }
    }
}
