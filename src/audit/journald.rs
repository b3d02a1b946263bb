//! Where events go: the journal with structured fields, or JSON lines on standard error where there is none.
//! Trusts: journald on `/run/systemd/journal/socket`.
//! Touches: its datagram socket, opened once, before confinement.
//! Next: `journalctl SALAMA_EVENT=call_done -o json`.

use std::io;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// journald.
    Journal,
    /// Standard error.
    Stderr,
}

/// Why events have nowhere to go.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Someone was faster.
    #[error("the log is already set up")]
    Twice(#[source] TryInitError),
}

/// Opens the sink for the whole process. Other crates may say no more than warnings, so that none writes what it parses.
///
/// # Errors
/// `Twice`.
pub fn init(identifier: &str) -> Result<Sink, InitError> {
    let ours = Targets::new().with_default(LevelFilter::WARN).with_target("salama", LevelFilter::INFO);
    match journal(identifier) {
        Ok(layer) => tracing_subscriber::registry().with(ours).with(layer).try_init().map_err(InitError::Twice).map(|()| Sink::Journal),
        Err(_) => {
            let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr);
            tracing_subscriber::registry().with(ours).with(lines).try_init().map_err(InitError::Twice).map(|()| Sink::Stderr)
        }
    }
}

/// `event` becomes `SALAMA_EVENT`, and so on.
fn journal(identifier: &str) -> io::Result<tracing_journald::Layer> {
    let layer = tracing_journald::Layer::new()?;
    Ok(layer.with_field_prefix(Some("SALAMA".into())).with_syslog_identifier(identifier.to_owned()))
}
