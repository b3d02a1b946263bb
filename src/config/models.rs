//! `[models]`: where the models lie and which one listens.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `lifecycle` makes the worker's command line of it.

use std::path::PathBuf;

use super::read::Section;

/// The section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models {
    /// Holds one directory a model.
    pub directory: PathBuf,
    /// Name of the speech model.
    pub asr: String,
}

impl Models {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            directory: section.path("directory", "/usr/lib/salama/models"),
            asr: section.text(
                "asr",
                "whisper-base".to_owned(),
                "must be the name of a model directory: lower-case letters, digits and hyphens",
                |text| is_model_name(text).then(|| text.to_owned()),
            ),
        }
    }
}

fn is_model_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_is_no_path() {
        assert!(is_model_name("whisper-tiny-en"));
        for text in ["", "../keys", "a/b", "Whisper", ".", "a.b"] {
            assert!(!is_model_name(text), "{text}");
        }
    }
}
