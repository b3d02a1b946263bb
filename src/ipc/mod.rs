//! All that crosses a line between two of our processes: frames, messages, descriptors.
//! Trusts: nothing on the other end; every frame is capped and every message is of a closed type.
//! Touches: one inherited `SOCK_SEQPACKET` socket a channel.
//! Next: `keys` and `keeper` speak [`keeper`]; `cli` and `lifecycle` [`maintenance`]; `supervisor` and `worker` speak [`worker`].

pub mod burst;
pub mod channel;
pub mod keeper;
pub mod key_log;
pub mod keyslots;
pub mod maintenance;
pub mod transcript;
pub mod worker;

/// Raised whenever a message of this folder changes; both ends refuse another number.
pub const PROTOCOL_VERSION: u16 = 3;

/// The descriptor on which a started program finds its channel.
pub const CHANNEL_FD: i32 = 3;
