//! `salama call …`.
//! Trusts: nothing in the replies.
//! Touches: the recording that is sent; the appliance; the file that an export is written to.
//! Next: standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, header};
use indicatif::ProgressBar;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::args::{DeleteArgs, ErasureArgs, ExportArgs, Format, ListArgs, SendArgs, TranscriptArgs};
use super::client::{self, Client};
use super::failure::Failure;
use super::follow::{self, Display, End};
use super::output::{Output, clean, clock, size, table, warn};
use super::{measure, transcript};
use crate::base::hex::hex;
use crate::base::ids::CallId;
use crate::job::spec::{CallMetadata, CallPage, CallView, Consent, ErasureView, Transcript};

/// Bytes of the recording in one piece of the request.
const PIECE: usize = 64 * 1024;
/// From the last byte of a recording to the reply, and all the sending before it.
const UPLOAD_LIMIT: Duration = Duration::from_secs(2 * 3600);

fn path(call: CallId) -> String {
    format!("/api/v1/calls/{call}")
}

/// Sends a recording.
pub(super) async fn send(client: &Client, output: Output, args: &SendArgs) -> Result<(), Failure> {
    let metadata = metadata(args)?;
    let key = args.idempotency_key.clone().map_or_else(random_key, Ok)?;
    let view = upload(client, output, &args.file, &metadata, &key).await.inspect_err(|failure| {
        if failure.is_retryable() {
            warn(&format!("the recording may have arrived; to send it again without making a second call add --idempotency-key {key}"));
        }
    })?;
    if !args.watch {
        return output.either(&view, |view| format!("call {} is {}", view.id, view.state.word()));
    }
    output.note(&format!("call {} is {}", view.id, view.state.word()));
    let mut display = Display::new(output);
    let end = follow::follow(client, view.id, |event| {
        display.show(event);
        Ok(())
    })
    .await?;
    let view: CallView = client.get(&path(view.id)).await?;
    output.either(&view, |view| format!("call {} is {}", view.id, view.state.word()))?;
    end.verdict()
}

pub(super) fn metadata(args: &SendArgs) -> Result<CallMetadata, Failure> {
    let purposes = args.purpose.iter().map(|purpose| (*purpose).into()).collect();
    let consent = Consent { basis: args.consent.into(), purposes, given_at: args.consent_at.clone() };
    let (language, recorded_at, reference) = (args.language.clone(), args.recorded_at.clone(), args.reference.clone());
    let channels = args.channels.as_ref().map(|roles| roles.iter().map(|role| (*role).into()).collect());
    let metadata = CallMetadata { consent, language, recorded_at, reference, channels, samples: None };
    metadata.check().map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(metadata)
}

fn random_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::Configuration("the system gives no random numbers".to_owned()))?;
    Ok(hex(&bytes))
}

/// A form of two parts, `metadata` and `audio`, with its length in front and the recording never in memory as a whole.
pub(super) async fn upload(client: &Client, output: Output, file: &Path, metadata: &CallMetadata, key: &str) -> Result<CallView, Failure> {
    let read = |cause| Failure::Read { path: file.to_owned(), cause };
    let recording = File::open(file).map_err(read)?;
    let about = recording.metadata().map_err(read)?;
    if !about.is_file() {
        return Err(Failure::Usage(format!("{} is no file", file.display())));
    }
    let boundary = random_key()?;
    let json = serde_json::to_string(metadata).map_err(|error| Failure::Usage(error.to_string()))?;
    let before = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json\r\n\r\n{json}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"recording\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    let after = format!("\r\n--{boundary}--\r\n");
    let around = u64::try_from(before.len() + after.len()).unwrap_or(u64::MAX);
    let bar = follow::upload_bar(output, about.len());
    let body = client::streamed(pieces(before.into(), recording, about.len(), after.into(), bar.clone()));
    let mut request = client::request(Method::POST, "/api/v1/calls", body)?;
    let headers = request.headers_mut();
    client::set_header(headers, "content-type", &format!("multipart/form-data; boundary={boundary}"))?;
    client::set_header(headers, "idempotency-key", key)?;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(about.len().saturating_add(around)));
    let sent = client.send_within(request, UPLOAD_LIMIT).await;
    bar.finish_and_clear();
    let response = sent?;
    client::understand(&client.collect(response.into_body()).await?)
}

/// What is sent, in order.
struct Pieces {
    before: Option<Bytes>,
    recording: File,
    left: u64,
    after: Option<Bytes>,
    bar: ProgressBar,
}

fn pieces(
    before: Bytes,
    recording: File,
    left: u64,
    after: Bytes,
    bar: ProgressBar,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let state = Pieces { before: Some(before), recording, left, after: Some(after), bar };
    stream::unfold(state, |mut state| async move { state.next().map(|piece| (piece, state)) })
}

impl Pieces {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(before) = self.before.take() {
            return Some(Ok(before));
        }
        if self.left == 0 {
            return self.after.take().map(Ok);
        }
        let mut piece = vec![0; usize::try_from(self.left).unwrap_or(PIECE).min(PIECE)];
        Some(self.recording.read_exact(&mut piece).map(|()| {
            let count = u64::try_from(piece.len()).unwrap_or(0);
            self.left -= count.min(self.left);
            self.bar.inc(count);
            Bytes::from(piece)
        }))
    }
}

/// Lists calls.
pub(super) async fn list(client: &Client, output: Output, args: &ListArgs) -> Result<(), Failure> {
    let mut path = format!("/api/v1/calls?limit={}", args.limit);
    if let Some(cursor) = &args.cursor {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        let escaped = cursor.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
        path = format!("{path}&cursor={}", escaped.collect::<String>());
    }
    let page: CallPage = client.get(&path).await?;
    output.either(&page, |page| {
        if page.calls.is_empty() {
            return "there are no calls".to_owned();
        }
        let head = ["CALL", "STATE", "DONE", "LENGTH", "SIZE", "ACCEPTED", "OWNER"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(page.calls.iter().map(row)).collect();
        let more = page.next.as_ref().map(|next| format!("\nmore: --cursor {}\n", clean(next)));
        table(&rows) + &more.unwrap_or_default()
    })
}

fn row(view: &CallView) -> Vec<String> {
    let length = view.audio_ms.map_or_else(|| "-".to_owned(), clock);
    let accepted = clean(view.created_at.get(..19).unwrap_or(&view.created_at)).replace('T', " ");
    let state = view.state.word().to_owned();
    vec![view.id.to_string(), state, format!("{:>3} %", view.percent), length, size(view.audio_bytes), accepted, clean(&view.owner)]
}

/// Shows one call.
pub(super) async fn show(client: &Client, output: Output, call: CallId) -> Result<(), Failure> {
    let view: CallView = client.get(&path(call)).await?;
    output.either(&view, facts)
}

fn facts(view: &CallView) -> String {
    let mut rows = vec![
        ("call", view.id.to_string()),
        ("state", view.state.word().to_owned()),
        ("done", format!("{} %", view.percent)),
        ("owner", clean(&view.owner)),
        ("accepted", clean(&view.created_at)),
        ("changed", clean(&view.updated_at)),
        ("size", size(view.audio_bytes)),
        ("attempts", view.attempts.to_string()),
    ];
    if let Some(audio) = &view.audio {
        let channels = if audio.channels == 1 { "one channel" } else { "two channels" };
        rows.push(("recording", format!("{}, {} Hz, {channels}", clean(&audio.format), audio.sample_rate)));
    }
    rows.extend(view.audio_ms.map(|length| ("length", clock(length))));
    rows.extend(view.stage.filter(|_| !view.state.is_final()).map(|stage| ("stage", follow::stage_word(stage).to_owned())));
    rows.extend(view.failure.map(|failure| ("reason", failure.to_string())));
    table(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
}

/// Follows one call; its end decides the exit code.
pub(super) async fn watch(client: &Client, output: Output, call: CallId) -> Result<(), Failure> {
    let mut display = Display::new(output);
    let end: End = follow::follow(client, call, |event| {
        if output.json {
            return output.json_line(event);
        }
        display.show(event);
        Ok(())
    })
    .await?;
    if !output.json {
        output.text(&format!("call {call} is {}", end.state.word()))?;
    }
    end.verdict()
}

/// Prints a transcript, or its word error rate.
pub(super) async fn transcript(client: &Client, output: Output, args: &TranscriptArgs) -> Result<(), Failure> {
    let path = format!("{}/transcript", path(args.call.id));
    match (args.format, &args.reference) {
        (Some(format), _) if !(output.json && format == Format::Json) => {
            output.bytes(&client.document(&format!("{path}?format={}", format.word())).await?)
        }
        (_, Some(reference)) => {
            let said = std::fs::read_to_string(reference).map_err(|cause| Failure::Read { path: reference.clone(), cause })?;
            let heard: Transcript = client.get(&path).await?;
            let measured = transcript::measured(measure::compare(&said, &heard.utterances), &heard);
            output.either(&measured, transcript::measured_words)
        }
        _ => {
            let transcript: Transcript = client.get(&path).await?;
            output.either(&transcript, transcript::page)
        }
    }
}

/// Exports a call.
pub(super) async fn export(client: &Client, output: Output, args: &ExportArgs) -> Result<(), Failure> {
    let document = client.document(&format!("{}/export?format=json", path(args.call.id))).await?;
    let Some(file) = &args.output else { return output.bytes(&document).and_then(|()| output.text("")) };
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).and_then(|mut file| {
        file.write_all(&document)?;
        file.sync_all()
    });
    written.map_err(|cause| Failure::Write { path: file.clone(), cause })?;
    output.note(&format!("written to {}", file.display()));
    Ok(())
}

/// Stops a call.
pub(super) async fn cancel(client: &Client, output: Output, call: CallId) -> Result<(), Failure> {
    let view: CallView = client.post(&format!("{}/cancel", path(call)), None::<&()>).await?;
    output.either(&view, |view| format!("call {} is {}", view.id, view.state.word()))
}

/// Erases a call, once it is certain that this is meant.
pub(super) async fn delete(client: &Client, output: Output, args: DeleteArgs) -> Result<(), Failure> {
    let call = args.call.id;
    if !args.yes {
        confirm(call)?;
    }
    client.delete(&path(call)).await?;
    if args.now {
        return erasure(client, output, ErasureArgs { call: args.call, now: true, certificate: args.certificate }).await;
    }
    output.either(&serde_json::json!({ "erased": call }), |_| format!("call {call} is erased"))
}

/// How often who waits for an erasure is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// The limit of every erasure, where who erases sees it.
const PAPER: &str = "a copy of the disk from before still opens it together with a recovery code or shares of that time: after `salama keys \
                     rotate --recovery`, destroy the old papers";

/// Shows how far an erasure is, and keeps its certificate.
pub(super) async fn erasure(client: &Client, output: Output, args: ErasureArgs) -> Result<(), Failure> {
    let path = format!("{}/erasure", path(args.call.id));
    let view: ErasureView = if args.now { final_now(client, output, &path).await? } else { client.get(&path).await? };
    if let Some(file) = &args.certificate {
        let certificate = view.certificate.as_ref().ok_or_else(|| Failure::Usage("there is no certificate yet; add --now".to_owned()))?;
        let signature = bytes_of(&certificate.signature).ok_or_else(|| Failure::Reply("the signature is not hexadecimal".to_owned()))?;
        write_new(file, certificate.statement.as_bytes())?;
        let mut beside = file.clone().into_os_string();
        beside.push(".sig");
        write_new(Path::new(&beside), &signature)?;
    }
    output.either(&view, |view| match &view.certificate {
        Some(certificate) => format!("the erasure of call {} is final\n{}\n{PAPER}", view.call, certificate.statement),
        None => format!("call {} is erased; copies of the disk from before still open it on this machine until the epoch moves", view.call),
    })
}

/// Asks for it, and tells meanwhile how many calls were wrapped anew.
async fn final_now(client: &Client, output: Output, path: &str) -> Result<ErasureView, Failure> {
    let asked = client.post(path, None::<&()>);
    tokio::pin!(asked);
    loop {
        tokio::select! {
            view = &mut asked => return view,
            () = tokio::time::sleep(PROGRESS) => {
                // Only a look: the move goes on, whatever becomes of it.
                if let Ok(view) = client.get::<ErasureView>(path).await && view.rewrapped_of > 0 {
                    output.note(&format!("{} of {} calls wrapped anew", view.rewrapped, view.rewrapped_of));
                }
            }
        }
    }
}

fn bytes_of(hexadecimal: &str) -> Option<Vec<u8>> {
    let (pairs, []) = hexadecimal.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn write_new(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|cause| Failure::Write { path: file.to_owned(), cause })
}

fn confirm(call: CallId) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("erasing cannot be undone; add --yes to do it without being asked".to_owned()));
    }
    warn(&format!("erase call {call} with its recording and transcript for ever? Write yes:"));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" { Ok(()) } else { Err(Failure::Usage("nothing was erased".to_owned())) }
}
