//! A whole appliance for tests: a software TPM, real keys, the real confined daemon, real TLS clients.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod appliance;
pub mod audio;
pub mod client;
pub mod disk;
pub mod faulty_tpm;
pub mod gate;
pub mod image;
pub mod journal;
pub mod keys;
pub mod needles;
pub mod plants;
pub mod process;
pub mod raw;
pub mod scan;
pub mod swtpm;
pub mod wiretap;
