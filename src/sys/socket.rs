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
    Ok(setsockopt(&socket, sockopt::ReceiveTimeout, &timeval(limit))?)
}

/// Limits how long a send waits for room; `None` waits for ever.
///
/// # Errors
/// What the kernel says.
pub fn set_send_timeout(socket: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::SendTimeout, &timeval(limit))?)
}

fn timeval(limit: Option<Duration>) -> TimeVal {
    TimeVal::microseconds(limit.map_or(0, |limit| i64::try_from(limit.as_micros()).unwrap_or(i64::MAX).max(1)))
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
pub fn recv_with_fd(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
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

/// Receives one packet into `buffer`. Without room for descriptors the kernel installs none, so that a peer cannot use up ours.
///
/// # Errors
/// What the kernel says; `EAGAIN` (`WouldBlock`) after the receive timeout; `InvalidData` when the packet came with descriptors.
pub fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, None, MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(message) => break message,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(Packet { len: message.bytes, truncated: message.flags.contains(MsgFlags::MSG_TRUNC), fd: None })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_packet_with_an_uninvited_descriptor_is_refused_and_nothing_is_installed() {
        let (one, other) = seqpacket_pair(1024).unwrap();
        send(one.as_fd(), b"x", Some(one.as_fd())).unwrap();
        assert_eq!(recv(other.as_fd(), &mut [0; 16]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_invited_descriptor_arrives() {
        let (one, other) = seqpacket_pair(1024).unwrap();
        let file = fs::File::open("/proc/self/status").unwrap();
        send(one.as_fd(), b"x", Some(file.as_fd())).unwrap();
        let packet = recv_with_fd(other.as_fd(), &mut [0; 16]).unwrap();
        assert_eq!((packet.len, packet.truncated, packet.fd.is_some()), (1, false, true));
    }

    #[test]
    fn a_packet_longer_than_the_buffer_is_known_as_such() {
        let (one, other) = seqpacket_pair(1024).unwrap();
        send(one.as_fd(), &[0; 17], None).unwrap();
        assert!(recv(other.as_fd(), &mut [0; 16]).unwrap().truncated);
    }
}
