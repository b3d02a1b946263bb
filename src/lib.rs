//! Salama: a sealed box for child helplines.

pub mod audit;
pub mod base;
pub mod ipc;
pub mod job;
pub mod record;
pub mod sys;
