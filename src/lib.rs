//! Salama: a sealed box for child helplines. Recordings in over mutual TLS; redacted transcripts out.
//!
//! ```text
//!            mTLS                       one call's key                 one call's audio
//! clients ─────────> salamad ─────────────────────────> salama-keeper     (TPM, keys)
//!                    connection > identity > authz > api
//!                    job > record (redb, sealed segments)
//!                       └──────────────────────────────> salama-worker ──fork──> child
//!                                                        models, warm            decode > speech > text
//! ```
//!
//! # Which module may name which
//! Arrows point down the table. `tests/architecture.rs` reads it and fails on any other arrow.
//!
//! | module | may name |
//! |---|---|
//! | `base` | |
//! | `sys` | `base` |
//! | `ipc` | `base` `sys` |
//! | `sandbox` | `base` `sys` |
//! | `config` | `base` |
//! | `model` | `base` `sys` |
//! | `worker` | `base` `sys` `ipc` `sandbox` `model` |
//! | `keeper` | `base` `sys` `ipc` `sandbox` |
//! | `keys` | `base` `ipc` |
//! | `audit` | `base` |
//! | `record` | `base` `keys` `ipc` |
//! | `identity` | `base` |
//! | `authz` | `base` `identity` |
//! | `admission` | `base` |
//! | `supervisor` | `base` `sys` `ipc` |
//! | `job` | `base` `ipc` `record` `keys` `supervisor` `audit` |
//! | `api` | `base` `ipc` `config` `admission` `identity` `authz` `job` `audit` `supervisor` |
//! | `connection` | `base` `sys` `config` `admission` `identity` `authz` `api` `audit` |
//! | `lifecycle` | `base` `sys` `ipc` `sandbox` `config` `keys` `audit` `record` `identity` `authz` `supervisor` `job` `api` `connection` |
//! | `cli` | `base` `sys` `ipc` `sandbox` `model` `keys` `supervisor` `identity` `job` |
//!
//! `cli`, `keeper`, `model` and `worker` are not in this library: each is compiled into the programs that own it
//! (`src/bin/`), so that no other program can carry its code.
//!
//! # Which file does what
//! | behaviour | file |
//! |---|---|
//! | start-up of the daemon | `src/main.rs` |
//! | one request | `src/connection/serve.rs` |
//! | one call | `src/job/runner.rs` |
//! | inside the sandbox | `src/worker/run.rs` |
//! | who may do what | `src/authz/policy.rs` |
//! | which system calls are allowed, and why | `src/sandbox/policy/` |
//! | what crosses a process line | `src/ipc/` |
//! | an error becomes a reply | `src/api/problem.rs` |

#![cfg_attr(test, allow(clippy::as_conversions, clippy::unreachable, reason = "a test says what it expects, loudly"))]

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
pub mod keys;
pub mod lifecycle;
pub mod record;
pub mod sandbox;
pub mod supervisor;
pub mod sys;
