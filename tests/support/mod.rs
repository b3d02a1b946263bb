//! A whole appliance for tests: a software TPM, real keys, the real confined daemon, real TLS clients.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod appliance;
pub mod audio;
pub mod client;
pub mod disk;
pub mod journal;
pub mod keys;
pub mod raw;
pub mod scan;
pub mod swtpm;
