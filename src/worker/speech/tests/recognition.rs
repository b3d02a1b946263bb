//! The whole pipeline, sound to words.
