//! Who is on the other end: a person or machine, known by the certificate that TLS has verified.
//! Trusts: rustls has checked chain, dates and possession of the key.
//! Touches: nothing.
//! Next: `authz` decides what the peer may do.

pub mod peer;
