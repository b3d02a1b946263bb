//! Tests of the way from a socket to a reply and back, over real TLS on loopback.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: one file a subject.

mod audit;
mod bursts;
mod calls;
mod cuts;
mod hostile;
mod limits;
mod refusals;
mod routes;
mod transport;
mod uploads;
