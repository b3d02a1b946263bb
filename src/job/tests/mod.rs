//! The desk, driven as `api` drives it, on a real store, real sealed recordings and real channels to scripted children.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

mod channels;
mod counts;
mod epoch;
mod full_disk;
mod intake;
mod lasting;
mod restart;
mod support;
mod work;
