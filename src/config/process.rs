//! `[process]`: which users the three kinds of process become when they are started as root.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `sandbox` drops to them.

use super::read::Section;

/// The section. Three users, so that no process can signal, trace or read another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Of the core.
    pub user: String,
    /// Of the key keeper.
    pub keeper_user: String,
    /// Of the fork server and its children.
    pub worker_user: String,
}

impl Process {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            user: user(section, "user", "salama"),
            keeper_user: user(section, "keeper_user", "salama-keeper"),
            worker_user: user(section, "worker_user", "salama-worker"),
        }
    }
}

fn user(section: &mut Section<'_>, key: &str, default: &str) -> String {
    let rule = "must be the name of a system user other than root: lower-case letters, digits, hyphens and underscores";
    section.text(key, default.to_owned(), rule, |text| is_user(text).then(|| text.to_owned()))
}

/// The names that Debian's adduser makes, without root.
fn is_user(text: &str) -> bool {
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    starts && text.len() <= 32 && text.bytes().all(allowed) && text != "root"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_numbers_are_no_users_to_become() {
        assert!(is_user("salama-worker") && is_user("_salama"));
        for text in ["", "root", "0", "1000", "Salama", "a b"] {
            assert!(!is_user(text), "{text}");
        }
    }
}
