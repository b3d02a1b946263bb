//! From a socket to a request with a known peer, and back to a closed socket.
//! Trusts: the kernel's addresses, rustls.
//! Touches: the listening socket and its connections.
//! Next: `api`.

mod idle;
mod linger;
pub mod listener;
mod rest;
pub mod serve;
mod streams;
pub mod tls;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
