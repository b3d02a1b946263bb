//! What every other module may use: identifiers, time, secrets, bounded values, exit codes, errors in words,
//! hexadecimal digits, characters and JSON that are taken from outside.
//! Trusts: nothing; every constructor checks its input.
//! Touches: the random number generator of the operating system, the clock.
//! Next: nobody; `base` knows no other module of this crate.

pub mod characters;
pub mod clock;
pub mod exit;
pub mod hex;
pub mod ids;
pub mod object;
pub mod secret;
pub mod told;
