//! Bytes as lower-case hexadecimal digits and back.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: whoever shows a key, a digest or a signature, and reads one back.

use std::fmt::Write as _;

/// Two lower-case digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of lower-case hexadecimal digits, exactly as many.
pub fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| b"0123456789abcdef".iter().position(|known| *known == digit));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}
