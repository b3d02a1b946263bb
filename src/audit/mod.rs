//! What happened and what was refused, one line each, without content and without callers' names.
//! Trusts: the events, whose types leave no room for content.
//! Touches: the journal's socket, or standard error.
//! Next: every module that decides something calls [`record`].

pub mod event;
pub mod journald;
pub mod line;
#[cfg(test)]
mod tests;

pub use event::Event;
pub use journald::{InitError, Sink, init};

/// Records one event.
pub fn record(event: &Event) {
    let line = event.line();
    let role = line.who.map(|who| who.role.as_str());
    let name = line.who.map(|who| who.name.as_str());
    let call = line.call.map(|call| call.to_string());
    let peer = line.peer.map(|peer| peer.to_string());
    let message = event.to_string();
    macro_rules! emit {
        ($level:expr) => {
            tracing::event!(
                target: "salama::audit",
                $level,
                event = event.code(),
                role,
                name,
                call,
                peer,
                action = line.action,
                outcome = line.outcome,
                reason = line.reason,
                count = line.count,
                attempt = line.attempt,
                epoch = line.epoch,
                audio_ms = line.audio_ms,
                wall_ms = line.wall_ms,
                bytes = line.bytes,
                detail = line.detail,
                "{message}"
            )
        };
    }
    match event.severity() {
        line::Severity::Notice => emit!(tracing::Level::INFO),
        line::Severity::Warning => emit!(tracing::Level::WARN),
        line::Severity::Error => emit!(tracing::Level::ERROR),
    }
}
