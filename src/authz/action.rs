//! Everything that can be asked for. Closed: a new endpoint needs a new action, and so a line in the table.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::policy`] says who may.

/// Requests of one class share one rate limit of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Recordings on their way in.
    Upload,
    /// Reading calls and their content.
    Read,
    /// Cancelling and erasing.
    Change,
    /// Redaction of text: work for a child.
    Text,
    /// Health, metrics, the peer's own name.
    Status,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 5] = [Self::Upload, Self::Read, Self::Change, Self::Text, Self::Status];

    /// The word in metrics, headers and settings.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Read => "read",
            Self::Change => "change",
            Self::Text => "text",
            Self::Status => "status",
        }
    }
}

/// A type that stands for one action, so that a permit for one is no permit for another.
pub trait Acting: Send + Sync + 'static {
    /// Which action.
    const ACTION: Action;
}

macro_rules! actions {
    ($($(#[$doc:meta])+ $name:ident, $word:literal, $class:ident;)+) => {
        /// Something that a peer may ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])+ $name,)+ }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word in audit entries.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// Which rate limit it falls under.
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)+ }
            }
        }

        $($(#[$doc])+
        #[derive(Debug)]
        pub struct $name;

        impl Acting for $name {
            const ACTION: Action = Action::$name;
        })+
    };
}

actions! {
    /// Post a recording.
    CreateCall, "call.create", Upload;
    /// List calls.
    ListCalls, "call.list", Read;
    /// Read the state of a call.
    ViewCall, "call.view", Read;
    /// Follow the events of a call.
    WatchCall, "call.watch", Read;
    /// Read the redacted transcript of a call.
    ReadTranscript, "call.transcript", Read;
    /// Take out the export document of a call.
    ExportCall, "call.export", Read;
    /// Stop the work on a call.
    CancelCall, "call.cancel", Change;
    /// Erase a call.
    DeleteCall, "call.delete", Change;
    /// Read how far an erasure is, and its certificate; nothing of the call is left to read.
    ReadErasure, "call.erasure", Read;
    /// Let the keeper open more calls than usual for a while. The keeper asks for the same role again, by itself.
    BurstKeys, "keys.burst", Change;
    /// Redact a text; nothing is stored.
    RedactText, "text.redact", Text;
    /// Ask for the peer's own role and name.
    WhoAmI, "whoami", Status;
    /// Read the description of the API.
    ReadApiDocument, "openapi", Status;
    /// Ask whether the daemon lives and is ready.
    ReadHealth, "health", Status;
    /// Read the counters.
    ReadMetrics, "metrics", Status;
}
