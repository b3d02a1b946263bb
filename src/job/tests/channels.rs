//! Who speaks on which channel: as the uploader said, or nobody where that cannot be.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use bytes::Bytes;

use super::support::{OWNER, Office, good, metadata};
use crate::job::calls::Arrival;
use crate::job::spec::{ChannelRole, Scope};

/// Roles of the transcript, whether they were a mismatch, and roles in the exported metadata, for a recording of one channel.
async fn roles_of(told: Option<Vec<ChannelRole>>) -> (Option<Vec<ChannelRole>>, bool, Option<Vec<ChannelRole>>) {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let mut metadata = metadata();
    metadata.channels = told;
    let mut upload = office.calls.admit(OWNER, metadata, None).await.unwrap();
    upload.push(Bytes::from_static(b"recording")).await.unwrap();
    let Arrival::New(view) = upload.finish().await.unwrap() else { panic!("it is new") };
    office.ended(view.id).await;
    let transcript = office.calls.transcript(&Scope::All, view.id).await.unwrap();
    let export = office.calls.export(&Scope::All, view.id).await.unwrap();
    office.close();
    assert_eq!(export.transcript.unwrap(), transcript);
    (transcript.channels, transcript.channels_mismatch, export.metadata.channels)
}

#[tokio::test]
async fn roles_are_kept_and_shown_in_transcript_and_export() {
    let told = Some(vec![ChannelRole::Caller]);
    assert_eq!(roles_of(told.clone()).await, (told.clone(), false, told));
}

#[tokio::test]
async fn roles_of_other_channels_than_the_recording_has_name_nobody_and_are_called_a_mismatch() {
    let told = Some(vec![ChannelRole::Counsellor, ChannelRole::Caller]);
    assert_eq!(roles_of(told.clone()).await, (None, true, told));
}

#[tokio::test]
async fn a_call_without_roles_has_none_and_no_mismatch() {
    assert_eq!(roles_of(None).await, (None, false, None));
}
