//! The life of the daemon once it is confined: parts wired, served, watched, drained.
//! Trusts: the parts that the start-up story hands over.
//! Touches: the runtime, signals, systemd's notify socket.
//! Next: `connection` accepts, `job` works.

pub mod arguments;
pub mod daemon;
pub mod notify;
pub mod parts;
pub mod signals;
pub mod vitals;
