//! What systemd is told: readiness, where the daemon listens, that it lives, that it stops.
//! Trusts: the environment that systemd set.
//! Touches: the socket that `NOTIFY_SOCKET` names, when it does.
//! Next: systemd, or a test that listens like it.

use std::net::SocketAddr;
use std::time::Duration;

use sd_notify::NotifyState;

/// Ready, and where.
pub fn ready(address: SocketAddr) {
    tell(&[NotifyState::Status(&format!("listening on {address}")), NotifyState::Ready]);
}

/// Stopping: no new work is begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that the daemon lives: half of its limit.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// A message that does not arrive is no fault of the daemon: systemd acts on silence by itself.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        eprintln!("salamad: systemd was not notified: {error}");
    }
}
