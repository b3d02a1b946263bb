//! Places for connections: so many in all, so many for one source, given back on drop.
//! Trusts: the address that the kernel reports.
//! Touches: nothing; the table holds only sources that are connected now, so the total bounds it.
//! Next: `connection::serve` holds the [`Place`] as long as the connection lives.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Places for connections.
#[derive(Clone, Debug)]
pub struct Places {
    table: Arc<Mutex<Table>>,
    total: usize,
    per_source: usize,
}

#[derive(Debug, Default)]
struct Table {
    taken: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    table: Arc<Mutex<Table>>,
    source: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// As many connections as allowed in all.
    #[error("as many connections are open as the appliance allows")]
    Total,
    /// As many as allowed for this source.
    #[error("as many connections are open as one source is allowed")]
    Source,
}

impl Places {
    /// At most `total` connections, at most `per_source` of one address (IPv6: of one /64 network).
    pub fn new(total: usize, per_source: usize) -> Self {
        Self { table: Arc::default(), total, per_source }
    }

    /// Takes a place for a connection from `address`.
    ///
    /// # Errors
    /// [`Crowded`] when there is none.
    pub fn take(&self, address: IpAddr) -> Result<Place, Crowded> {
        let source = network(address);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.taken >= self.total {
            return Err(Crowded::Total);
        }
        let count = table.by_source.entry(source).or_default();
        if *count >= self.per_source {
            return Err(Crowded::Source);
        }
        *count += 1;
        table.taken += 1;
        drop(table);
        Ok(Place { table: Arc::clone(&self.table), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.taken = table.taken.saturating_sub(1);
        if let Some(count) = table.by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.by_source.remove(&self.source);
            }
        }
    }
}

/// One host may use a whole IPv6 /64, so that is what counts as one source.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let places = Places::new(3, 2);
        let _held = [places.take(address("10.0.0.1")).unwrap(), places.take(address("::ffff:10.0.0.1")).unwrap()];
        assert_eq!(places.take(address("10.0.0.1")).unwrap_err(), Crowded::Source);
        let _other = places.take(address("10.0.0.2")).unwrap();
        assert_eq!(places.take(address("10.0.0.3")).unwrap_err(), Crowded::Total);
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let places = Places::new(3, 1);
        let _held = places.take(address("2001:db8::1")).unwrap();
        assert_eq!(places.take(address("2001:db8::2")).unwrap_err(), Crowded::Source);
        assert!(places.take(address("2001:db8:0:1::2")).is_ok());
    }

    #[test]
    fn a_closed_connection_gives_its_place_back_and_leaves_no_entry() {
        let places = Places::new(1, 1);
        drop(places.take(address("10.0.0.1")).unwrap());
        assert!(places.table.lock().unwrap().by_source.is_empty());
        assert!(places.take(address("10.0.0.1")).is_ok());
    }
}
