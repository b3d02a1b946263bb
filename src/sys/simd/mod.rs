//! Numeric kernels of the recognisers of speech and names, on the vector unit that the processor has: AVX-512, AVX2, or plain Rust.
//! Trusts: nothing; sizes are checked, a mismatch panics like an index out of bounds.
//! Touches: nothing.
//! Next: `worker::layers`, `worker::speech`.
//!
//! Each kernel is one inlined function, compiled once for each unit; [`Unit`] is looked up once for each call. Plain loops over
//! arrays, no iterator adaptors: those are generic functions that are not always inlined across code generation units in a build
//! without link-time optimisation, and then nothing becomes a vector instruction (measured: 24 ms instead of 5 ms for a vocabulary).

#![expect(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "buffers are sized or asserted before; loops over rows and lanes are plain, see above"
)]

mod fours;
mod half;
mod panels;
mod pointwise;
mod product;
mod quantised;

pub use fours::{BLOCK, Fours, product_fours, widen_fours};
pub use half::{Half, narrow};
pub use panels::{Element, PANEL, Panels, PanelsRef};
pub use pointwise::{gelu, largest, log_sum_exp, normalise, softmax};
pub use product::{Places, Rows, RowsMut, product};
pub use quantised::{Quantised, product_quantised};

/// Vector units that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// AVX-512 F and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the target has at least.
    Portable,
}

/// The best of this processor. The standard library looks once and remembers.
fn unit() -> Unit {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") && has!("f16c") {
            return if has!("avx512f") && has!("avx512vl") { Unit::Avx512 } else { Unit::Avx2 };
        }
    }
    Unit::Portable
}

/// Every unit that this processor has.
#[cfg(test)]
fn all_units() -> Vec<Unit> {
    let mut units = vec![Unit::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        assert!(unit() != Unit::Portable, "run the tests on a processor with AVX2, FMA and F16C");
        units.push(Unit::Avx2);
        if unit() == Unit::Avx512 {
            units.push(Unit::Avx512);
        }
    }
    units
}

/// Makes a function that runs an inlined one, compiled for each unit, in the form for the best: `pub fn name(arguments) -> T = inlined`.
/// `name::on` runs it in the form for a unit that the processor has.
macro_rules! for_each_unit {
    ($(#[$meta:meta])* pub fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$meta])*
        pub fn $name($($argument: $type),*) $(-> $result)? {
            $name::on(super::unit(), $($argument),*)
        }

        mod $name {
            use super::super::Unit;
            use super::$body;

            pub(super) fn on(unit: Unit, $($argument: $type),*) $(-> $result)? {
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx512f,avx512vl,avx2,fma,f16c")]
                    fn avx512($($argument: $type),*) $(-> $result)? {
                        $body::<true>($($argument),*)
                    }
                    #[target_feature(enable = "avx2,fma,f16c")]
                    fn avx2($($argument: $type),*) $(-> $result)? {
                        $body::<true>($($argument),*)
                    }
                    match unit {
                        // SAFETY: the processor has been found to have what the function is compiled for.
                        Unit::Avx512 => return unsafe { avx512($($argument),*) },
                        // SAFETY: as above.
                        Unit::Avx2 => return unsafe { avx2($($argument),*) },
                        Unit::Portable => {}
                    }
                }
                $body::<false>($($argument),*)
            }
        }
    };
}
use for_each_unit;
