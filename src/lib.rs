//! Salama: a sealed box for child helplines.

pub mod base;
pub mod cli;
pub mod ipc;
pub mod job;
pub mod keeper;
pub mod keys;
pub mod sandbox;
pub mod supervisor;
pub mod sys;
pub mod worker;
