//! Salama: a sealed box for child helplines.

pub mod admission;
pub mod api;
pub mod audit;
pub mod authz;
pub mod base;
pub mod config;
pub mod connection;
pub mod identity;
pub mod ipc;
pub mod job;
pub mod record;
pub mod sandbox;
pub mod supervisor;
pub mod sys;
