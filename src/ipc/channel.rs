//! One message, one packet: length-capped frames over an inherited `SOCK_SEQPACKET` socket.
//! Trusts: the kernel keeps packet borders. The peer may send anything.
//! Touches: its socket.
//! Next: `keeper` and `worker` say what the messages are.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

use crate::sys::socket;

/// Longest frame, bytes: one audio chunk or one long utterance with its words, with room to spare.
pub const FRAME_MAX: usize = 160 * 1024;

/// Receives with or without room for a descriptor.
type Recv = fn(BorrowedFd<'_>, &mut [u8]) -> io::Result<socket::Packet>;

/// One end of a pair.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the channel to another process failed")]
    Socket(#[source] io::Error),
    /// Nothing came within the time limit.
    #[error("the other process did not answer in time")]
    TimedOut,
    /// The message is longer than [`FRAME_MAX`].
    #[error("a message between processes is longer than {FRAME_MAX} bytes")]
    TooLong,
    /// The bytes are no message of the expected type.
    #[error("a message between processes is malformed")]
    Malformed,
    /// A descriptor came where none belongs, or none where one does.
    #[error("a message between processes carries the wrong number of descriptors")]
    Descriptors,
}

impl Channel {
    /// Two connected ends.
    ///
    /// # Errors
    /// When the kernel refuses: too many open files.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socket::seqpacket_pair(FRAME_MAX)?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// Makes a channel of an inherited or received socket.
    pub const fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Gives the socket away, to be inherited or sent.
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Limits how long [`Self::recv`] waits; `None` waits for ever.
    ///
    /// # Errors
    /// When the kernel refuses the option.
    pub fn set_receive_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        socket::set_receive_timeout(self.socket.as_fd(), limit)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `TooLong` before anything is sent; `Socket` when the peer is gone.
    pub fn send<M: Serialize>(&self, message: &M) -> Result<(), ChannelError> {
        self.send_frame(message, None)
    }

    /// Sends one message with one descriptor.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_with_fd<M: Serialize>(&self, message: &M, fd: BorrowedFd<'_>) -> Result<(), ChannelError> {
        self.send_frame(message, Some(fd))
    }

    fn send_frame<M: Serialize>(&self, message: &M, fd: Option<BorrowedFd<'_>>) -> Result<(), ChannelError> {
        let mut frame = vec![0; FRAME_MAX];
        let (used, sent) = match postcard::to_slice(message, &mut frame) {
            Ok(encoded) => (encoded.len(), socket::send(self.socket.as_fd(), encoded, fd).map_err(ChannelError::Socket)),
            Err(_) => (FRAME_MAX, Err(ChannelError::TooLong)),
        };
        wipe(&mut frame, used);
        sent
    }

    /// Waits for one message; `None` when the peer has closed its end.
    ///
    /// # Errors
    /// `TimedOut` after the receive timeout, `TooLong`, `Malformed` or `Descriptors` for a peer that breaks the protocol.
    pub fn recv<M: DeserializeOwned>(&self) -> Result<Option<M>, ChannelError> {
        Ok(self.recv_frame(socket::recv)?.map(|(message, _)| message))
    }

    /// Waits for one message that may carry a descriptor.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub fn recv_with_fd<M: DeserializeOwned>(&self) -> Result<Option<(M, Option<OwnedFd>)>, ChannelError> {
        self.recv_frame(socket::recv_with_fd)
    }

    fn recv_frame<M: DeserializeOwned>(&self, recv: Recv) -> Result<Option<(M, Option<OwnedFd>)>, ChannelError> {
        let mut frame = vec![0; FRAME_MAX];
        let received = recv(self.socket.as_fd(), &mut frame);
        let used = received.as_ref().map_or(0, |packet| packet.len);
        let message = match received {
            Ok(packet) if packet.len == 0 => Ok(None),
            Ok(packet) if packet.truncated => Err(ChannelError::TooLong),
            Ok(packet) => match postcard::take_from_bytes::<M>(frame.get(..packet.len).unwrap_or_default()) {
                Ok((message, [])) => Ok(Some((message, packet.fd))),
                _ => Err(ChannelError::Malformed),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ChannelError::TimedOut),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(ChannelError::Descriptors),
            Err(error) => Err(ChannelError::Socket(error)),
        };
        wipe(&mut frame, used);
        message
    }
}

/// Wipes what a message used of its frame: small messages come by the thousand, and the rest of the frame was never touched.
fn wipe(frame: &mut [u8], used: usize) {
    if let Some(message) = frame.get_mut(..used) {
        message.zeroize();
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
