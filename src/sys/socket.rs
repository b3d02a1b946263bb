//! Unix `SOCK_SEQPACKET` sockets that carry packets and at most one descriptor each.
//! Trusts: the kernel's control messages.
//! Touches: sockets.
//! Next: `ipc::channel`.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// What one `recvmsg` gave.
#[derive(Debug)]
pub struct Packet {
    /// Bytes written to the buffer; 0 is end of file.
    pub len: usize,
    /// The packet was longer than the buffer.
    pub truncated: bool,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
}

/// Two connected packet sockets, close-on-exec, whose buffers hold packets of `packet_max` bytes.
///
/// # Errors
/// What the kernel says.
pub fn seqpacket_pair(packet_max: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    for end in [&one, &other] {
        setsockopt(end, sockopt::SndBuf, &(2 * packet_max))?;
    }
    Ok((one, other))
}

/// Limits how long a receive waits; `None` waits for ever.
///
/// # Errors
/// What the kernel says.
pub fn set_receive_timeout(socket: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<()> {
    let micros = limit.map_or(0, |limit| i64::try_from(limit.as_micros()).unwrap_or(i64::MAX).max(1));
    Ok(setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(micros))?)
}

/// Sends one packet, with one descriptor when given. A closed peer is an error, never a signal.
///
/// # Errors
/// What the kernel says; `EPIPE` when the peer is gone.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let raw = fd.map(|fd| [fd.as_raw_fd()]);
    let control: Vec<ControlMessage<'_>> = raw.iter().map(|fds| ControlMessage::ScmRights(fds)).collect();
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(packet)], &control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet into `buffer`, with the descriptor it carries. More than one descriptor is refused.
///
/// # Errors
/// What the kernel says; `EAGAIN` (`WouldBlock`) after the receive timeout.
pub fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut space = cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(message) => break message,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds: Vec<OwnedFd> = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for this message; nobody else owns them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if fds.len() > 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(Packet { len: message.bytes, truncated: message.flags.contains(MsgFlags::MSG_TRUNC), fd: fds.pop() })
}
