//! Salama: a sealed box for child helplines.

pub mod base;
pub mod ipc;
pub mod job;
pub mod sandbox;
pub mod supervisor;
pub mod sys;
pub mod worker;
