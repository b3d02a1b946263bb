//! Targets that are broken on purpose, each in one way, to show that a run notices.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `smoke.rs` runs them and wants them to fail.

use super::Target;

/// Not among the real ones.
pub const TARGETS: &[Target] = &[
    Target { name: "planted_panic", run: panics, ..BASE },
    Target { name: "planted_hoard", run: hoards, ..BASE },
    Target { name: "planted_overflow", run: overflows, ..BASE },
];

const BASE: Target = Target {
    name: "planted",
    run: |_| {},
    seeds: || vec![b"DATA\x04\x00\x00\x00abcd".to_vec()],
    corpus: "",
    words: &[],
    memory: 1 << 20,
    longest: 256,
    smoke: 20_000,
};

/// Believes its length field.
fn panics(data: &[u8]) {
    if let Some((header, body)) = data.split_first_chunk::<8>()
        && let [b'D', b'A', b'T', b'A', a, b, 0, 0] = header
    {
        let _ = &body[..usize::from(u16::from_le_bytes([*a, *b]))];
    }
}

/// Takes as much memory as its length field says.
fn hoards(data: &[u8]) {
    if let Some(header) = data.first_chunk::<8>()
        && let [b'D', b'A', b'T', b'A', a, b, c, _] = header
    {
        std::hint::black_box(vec![1_u8; u32::from_le_bytes([*a, *b, *c, 0]) as usize]);
    }
}

/// Recurses as deep as its length field says.
fn overflows(data: &[u8]) {
    fn deep(left: u32) -> u32 {
        let frame = std::hint::black_box([left; 64]);
        if left == 0 { 0 } else { deep(left - 1).wrapping_add(frame[7]) }
    }
    if let Some(header) = data.first_chunk::<8>()
        && let [b'D', b'A', b'T', b'A', a, b, c, _] = header
    {
        deep(u32::from_le_bytes([*a, *b, *c, 0]));
    }
}
