//! What the API asks of the desk of calls, as a trait, so that its handlers can be tested without store, keys and workers.
//! Trusts: the caller holds the permit for what it asks.
//! Touches: whatever the desk touches.
//! Next: [`Calls`], the one desk outside tests.

use std::future::Future;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use crate::base::ids::CallId;
use crate::job::calls::{Arrival, Calls, CallsError};
use crate::job::spec::{CallEvent, CallExport, CallMetadata, CallPage, CallView, ErasureView, RedactedText, Scope, Transcript};
use crate::job::upload::Upload;

type Answer<T> = Result<T, CallsError>;

/// A recording on its way in; dropping it forgets everything of it. See [`Upload`].
pub trait Incoming: Send + 'static {
    /// See [`Upload::push`].
    fn push(&mut self, bytes: Bytes) -> impl Future<Output = Answer<()>> + Send;
    /// See [`Upload::finish`].
    fn finish(self) -> impl Future<Output = Answer<Arrival>> + Send;
}

/// The desk. Each function is the one of the same name of [`Calls`].
pub trait Desk: Clone + Send + Sync + 'static {
    /// An upload of this desk.
    type Upload: Incoming;

    /// See [`Calls::admit`].
    fn admit(&self, owner: &str, metadata: CallMetadata, key: Option<&str>) -> impl Future<Output = Answer<Self::Upload>> + Send;
    /// See [`Calls::list`].
    fn list(&self, scope: &Scope, cursor: Option<&str>, limit: u16) -> impl Future<Output = Answer<CallPage>> + Send;
    /// See [`Calls::get`].
    fn get(&self, scope: &Scope, id: CallId) -> impl Future<Output = Answer<CallView>> + Send;
    /// See [`Calls::transcript`].
    fn transcript(&self, scope: &Scope, id: CallId) -> impl Future<Output = Answer<Transcript>> + Send;
    /// See [`Calls::watch`].
    fn watch(&self, scope: &Scope, id: CallId, after: u64) -> impl Future<Output = Answer<Receiver<CallEvent>>> + Send;
    /// See [`Calls::cancel`].
    fn cancel(&self, scope: &Scope, id: CallId) -> impl Future<Output = Answer<CallView>> + Send;
    /// See [`Calls::delete`].
    fn delete(&self, scope: &Scope, id: CallId) -> impl Future<Output = Answer<()>> + Send;
    /// See [`Calls::erasure`].
    fn erasure(&self, scope: &Scope, id: CallId) -> impl Future<Output = Answer<ErasureView>> + Send;
    /// See [`Calls::erase_for_good`].
    fn erase_for_good(&self, scope: &Scope, id: CallId) -> impl Future<Output = Answer<ErasureView>> + Send;
    /// See [`Calls::export`].
    fn export(&self, scope: &Scope, id: CallId) -> impl Future<Output = Answer<CallExport>> + Send;
    /// See [`Calls::redact_text`].
    fn redact_text(&self, text: String) -> impl Future<Output = Answer<RedactedText>> + Send;
}

impl Incoming for Upload {
    async fn push(&mut self, bytes: Bytes) -> Answer<()> {
        Self::push(self, bytes).await
    }

    async fn finish(self) -> Answer<Arrival> {
        Self::finish(self).await
    }
}

impl Desk for Calls {
    type Upload = Upload;

    async fn admit(&self, owner: &str, metadata: CallMetadata, key: Option<&str>) -> Answer<Upload> {
        Self::admit(self, owner, metadata, key).await
    }

    async fn list(&self, scope: &Scope, cursor: Option<&str>, limit: u16) -> Answer<CallPage> {
        Self::list(self, scope, cursor, limit).await
    }

    async fn get(&self, scope: &Scope, id: CallId) -> Answer<CallView> {
        Self::get(self, scope, id).await
    }

    async fn transcript(&self, scope: &Scope, id: CallId) -> Answer<Transcript> {
        Self::transcript(self, scope, id).await
    }

    async fn watch(&self, scope: &Scope, id: CallId, after: u64) -> Answer<Receiver<CallEvent>> {
        Self::watch(self, scope, id, after).await
    }

    async fn cancel(&self, scope: &Scope, id: CallId) -> Answer<CallView> {
        Self::cancel(self, scope, id).await
    }

    async fn delete(&self, scope: &Scope, id: CallId) -> Answer<()> {
        Self::delete(self, scope, id).await
    }

    async fn erasure(&self, scope: &Scope, id: CallId) -> Answer<ErasureView> {
        Self::erasure(self, scope, id).await
    }

    async fn erase_for_good(&self, scope: &Scope, id: CallId) -> Answer<ErasureView> {
        Self::erase_for_good(self, scope, id).await
    }

    async fn export(&self, scope: &Scope, id: CallId) -> Answer<CallExport> {
        Self::export(self, scope, id).await
    }

    async fn redact_text(&self, text: String) -> Answer<RedactedText> {
        Self::redact_text(self, text).await
    }
}
