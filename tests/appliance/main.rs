//! The whole appliance over real TLS: the demo's way, each format, each bad input, each crash.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod bad_posts;
mod bursts;
mod channels;
mod core_dump;
mod crash;
mod epoch;
mod formats;
mod full_disk;
mod key_lines;
mod nothing_in_clear;
mod roles;
mod rollback;
mod searches;
mod start_up;
mod store_tools;
mod way_of_a_call;

use std::sync::OnceLock;

use support::appliance::Appliance;

/// The appliance that tests share which neither stop nor starve it.
fn shared() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(Appliance::start)
}
