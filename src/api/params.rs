//! What a path and a query may say, with problems instead of the framework's own replies.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: the handlers.

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};
use crate::base::ids::CallId;

/// The call in the path. What is no call id names no call.
pub(super) struct CallPath(pub(super) CallId);

impl<S: Send + Sync> FromRequestParts<S> for CallPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let unknown = || Problem::new(Kind::NotFound, "A call id is 32 lower-case hexadecimal digits.");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| unknown())?;
        text.parse().map(Self).map_err(|_| unknown())
    }
}

/// The query; unknown parameters are refused by the types that stand for it.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(asked) =
            Query::from_request_parts(parts, state).await.map_err(|rejection| Problem::new(Kind::BadRequest, rejection.body_text()))?;
        Ok(Self(asked))
    }
}
