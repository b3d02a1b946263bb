//! JSON objects where objects are asked for, and nothing else.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: the types of the API.
//!
//! What serde derives for a struct also takes an array of its fields in their order: `["caller", ["transcription"]]` for a consent.
//! Nobody documents that, so nobody may rely on it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Reads a `T` from an object only; for `#[serde(deserialize_with)]` and for whole documents.
///
/// # Errors
/// As `T`'s own, and for everything that is no object.
pub fn only<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_map(Only(PhantomData))
}

struct Only<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        one: u8,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(deserialize_with = "only")]
        inner: Inner,
    }

    fn outer(json: &str) -> Result<Outer, String> {
        only(&mut serde_json::Deserializer::from_str(json)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_array_of_the_fields_is_no_object() {
        assert_eq!(outer(r#"{"inner":{"one":1}}"#), Ok(Outer { inner: Inner { one: 1 } }));
        for array in [r#"[{"one":1}]"#, r#"{"inner":[1]}"#, "1", "null"] {
            assert!(outer(array).unwrap_err().contains("expected an object"), "{array}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_or_is_unknown_is_named() {
        assert!(outer(r#"{"inner":{"one":1,"one":2}}"#).unwrap_err().contains("duplicate field `one`"));
        assert!(outer(r#"{"inner":{"one":1,"two":2}}"#).unwrap_err().contains("unknown field `two`"));
    }
}
