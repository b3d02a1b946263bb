//! Choices that a seed repeats.
//! Trusts: nothing.
//! Touches: the environment, the clock.
//! Next: tests choose moments and faults with it.

use std::time::SystemTime;

/// A number from the environment.
pub fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

/// Sebastiano Vigna's splitmix64: enough to choose moments, and the same everywhere.
pub struct Chance(pub u64);

impl Chance {
    /// By `SALAMA_SEED`, or by the time; says which.
    pub fn seeded() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = asked("SALAMA_SEED").unwrap_or(u64::try_from(now.as_millis()).unwrap());
        println!("  SALAMA_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
