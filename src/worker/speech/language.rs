//! Which language is spoken: the scores after the start token, among the languages that the model knows.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `decode_loop` puts the language into the prompt.

use super::numeric::index_of;
use super::settings::Settings;

/// A language of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Language {
    /// ISO 639-1 code.
    pub code: String,
    /// Its token.
    pub token: u32,
    /// How likely it is, 0..=1; 1 when it was asked for.
    pub probability: f32,
}

/// The language that was asked for, when the model knows it. Case does not matter.
pub fn known(settings: &Settings, code: &str) -> Option<Language> {
    let (code, token) = settings.languages.iter().find(|(known, _)| known.eq_ignore_ascii_case(code))?;
    Some(Language { code: code.clone(), token: *token, probability: 1.0 })
}

/// The likeliest language by the scores after the start token; `None` for a model without languages.
pub fn likeliest(settings: &Settings, scores: &[f32]) -> Option<Language> {
    let scored = || settings.languages.iter().filter_map(|(code, token)| Some((code, *token, *scores.get(index_of(*token))?)));
    let (code, token, best) = scored().max_by(|one, other| one.2.total_cmp(&other.2))?;
    let total: f32 = scored().map(|(_, _, score)| (score - best).exp()).sum();
    Some(Language { code: code.clone(), token, probability: 1.0 / total })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::parse(
            br#"{"dims":64,"heads":1,"layers":1,"vocab":10,"text_ctx":448,"audio_ctx":1500,"multilingual":true,"sot":5,"eot":4,
            "transcribe":6,"no_timestamps":7,"no_speech":7,"timestamp_begin":9,"languages":[["en",8],["sw",9]],"suppress":[],
            "suppress_begin":[],"alignment_heads":[]}"#,
        )
        .unwrap()
    }

    #[test]
    fn only_languages_compete() {
        let mut scores = vec![0.0; 10];
        scores[3] = 50.0;
        scores[9] = 2.0;
        scores[8] = 2.0 - 3f32.ln();

        let language = likeliest(&settings(), &scores).unwrap();

        assert_eq!((language.code.as_str(), language.token), ("sw", 9));
        assert!((language.probability - 0.75).abs() < 1e-6);
    }

    #[test]
    fn an_unknown_language_is_not_known() {
        assert_eq!(known(&settings(), "SW").map(|language| language.token), Some(9));
        assert_eq!(known(&settings(), "tlh"), None);
    }
}
