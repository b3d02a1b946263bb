//! A socket that is not torn down under a client that still sends.
//! Trusts: nothing; what comes after the last reply is thrown away, under a limit of bytes and time.
//! Touches: its socket.
//! Next: nobody.
//!
//! Closing a socket with unread bytes makes the kernel send RST, which can destroy the reply (413, 403) or the TLS
//! alert before the client has read it (RFC 9112, 9.6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::admission::source::Place;

const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 4 * 1024 * 1024;

/// A connection and its place among the connections.
pub(super) struct Lingering {
    stream: Option<(TcpStream, Place)>,
    /// Something was sent that an RST could destroy. A server that gives up on a malformed head ends without saying goodbye.
    spoke: bool,
}

impl Lingering {
    pub(super) const fn new(stream: TcpStream, place: Place) -> Self {
        Self { stream: Some((stream, place)), spoke: false }
    }

    /// Small replies leave at once. A socket that is already dead shows it at the next read.
    pub(super) fn send_at_once(&self) {
        if let Some((stream, _)) = &self.stream {
            _ = stream.set_nodelay(true);
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(|(stream, _)| Pin::new(stream)).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if let (true, Some((stream, place)), Ok(runtime)) = (self.spoke, self.stream.take(), Handle::try_current()) {
            runtime.spawn(discard(stream, place));
        }
    }
}

async fn discard(mut stream: TcpStream, place: Place) {
    _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER_BYTES);
    let mut buffer = vec![0; 16 * 1024];
    let all = async { while rest.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    _ = tokio::time::timeout(LINGER, all).await;
    drop(place);
}

impl AsyncRead for Lingering {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.spoke = true;
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.spoke = true;
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.spoke = true;
        self.stream()?.poll_shutdown(cx)
    }
}
