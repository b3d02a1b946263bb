//! An error with its causes, as people read it.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: the operator's terminal, or the journal.

use std::error::Error;

/// An error with its causes, in one line.
pub fn told(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Many say what their source says: transparent ones, and those that name it in their own sentence.
        if !line.contains(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("the door is shut")]
        Door(#[source] Inner),
        #[error("the door is shut, because {0}; knock")]
        Said(#[source] Inner),
        #[error(transparent)]
        Through(#[from] Inner),
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the key is lost")]
    struct Inner;

    #[test]
    fn each_cause_is_told_once() {
        assert_eq!(told(&Outer::Door(Inner)), "the door is shut: the key is lost");
        assert_eq!(told(&Outer::Said(Inner)), "the door is shut, because the key is lost; knock");
        assert_eq!(told(&Outer::Through(Inner)), "the key is lost");
    }
}
