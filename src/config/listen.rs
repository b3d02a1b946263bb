//! `[listen]`: the socket and how many may be on it.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `connection`.

use std::net::{Ipv4Addr, SocketAddr};

use super::read::Section;

/// The section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where to bind when systemd hands no socket in.
    pub address: SocketAddr,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once of one address (IPv6: of one /64).
    pub max_connections_per_source: usize,
    /// Requests at once, over all connections.
    pub max_requests: usize,
}

impl Listen {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443));
        Self {
            address: section
                .text("address", default, "must be an IP address and port, for example \"0.0.0.0:8443\"", |text| text.parse().ok()),
            max_connections: range(section, "max_connections", 256, 4096),
            max_connections_per_source: range(section, "max_connections_per_source", 32, 4096),
            max_requests: range(section, "max_requests", 128, 4096),
        }
    }
}

fn range(section: &mut Section<'_>, key: &str, default: usize, most: usize) -> usize {
    section.number(key, default, 1..=most)
}
