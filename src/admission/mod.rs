//! Who gets a place at all, before anything is known of them, and how often a known peer may come back.
//! Trusts: the clock and the keys it is handed.
//! Touches: nothing; bounded tables in memory.
//! Next: `connection` asks [`source`], `api` asks [`rate`].

pub mod rate;
pub mod source;
