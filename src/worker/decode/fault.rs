//! What went wrong in a demuxer or codec, in our words.
//! Trusts: nothing; a panic on hostile input is an answer like any other.
//! Touches: the panic machinery.
//! Next: `Decoder` reports the [`CallFailure`].

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::errors::{Error, Result as SymphoniaResult};

use crate::ipc::worker::CallFailure;

/// Runs a piece of symphonia. A panic becomes `Damaged`, so that the call fails with a reason and is not tried again;
/// the objects in question are dropped by the caller.
pub(super) fn caught<T>(work: impl FnOnce() -> SymphoniaResult<T>) -> Result<SymphoniaResult<T>, CallFailure> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| CallFailure::Damaged)
}

/// The data ended.
pub(super) fn is_end(error: &Error) -> bool {
    matches!(error, Error::IoError(cause) if cause.kind() == ErrorKind::UnexpectedEof)
}

/// The word for an error.
pub(super) fn failure(error: &Error) -> CallFailure {
    match error {
        Error::Unsupported(_) => CallFailure::UnsupportedCodec,
        error if is_end(error) => CallFailure::Truncated,
        _ => CallFailure::Damaged,
    }
}
