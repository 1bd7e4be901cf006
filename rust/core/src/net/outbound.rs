//! Sockets of connections to a server.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The flags of all sockets.
pub const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A socket whose connection has begun.
#[derive(Debug)]
pub struct Outbound {
    /// The socket. It does not block.
    pub socket: OwnedFd,
    /// The server has not answered yet.
    pub connecting: bool,
}

/// Why a connection cannot begin.
#[derive(Debug)]
pub enum Problem {
    /// The source address is not on this machine.
    Source(io::Error),
    /// The server, or the network, has refused it.
    Server(io::Error),
}

/// Begin to connect to a server over TCP, from `source` or any address.
pub fn tcp(server: SocketAddr, source: Option<IpAddr>) -> Result<Outbound, Problem> {
    let family = if server.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SOCKET_FLAGS, None).map_err(of_server)?;
    sockopt::set_tcp_nodelay(&socket, true).map_err(of_server)?;
    if let Some(source) = source {
        bind(&socket, &SocketAddr::new(source, 0)).map_err(|error| Problem::Source(error.into()))?;
    }
    begun(connect(&socket, &server), socket)
}

/// Connect to a socket in the file system. A server whose queue is full is a failure, as in Postfix.
pub fn local(path: &Path) -> Result<Outbound, Problem> {
    let server = SocketAddrUnix::new(path).map_err(of_server)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SOCKET_FLAGS, None).map_err(of_server)?;
    begun(connect(&socket, &server), socket)
}

fn begun(connected: Result<(), Errno>, socket: OwnedFd) -> Result<Outbound, Problem> {
    match connected {
        Ok(()) => Ok(Outbound { socket, connecting: false }),
        Err(Errno::INPROGRESS) => Ok(Outbound { socket, connecting: true }),
        Err(error) => Err(of_server(error)),
    }
}

fn of_server(error: Errno) -> Problem {
    Problem::Server(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_connection_comes_from_the_source_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let begun = tcp(listener.local_addr().unwrap(), Some([127, 0, 0, 2].into())).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 2]));
        drop(begun);
    }

    #[test]
    fn a_foreign_source_address_is_no_error_of_the_server() {
        let begun = tcp(SocketAddr::from(([127, 0, 0, 1], 9)), Some([192, 0, 2, 9].into()));
        assert!(matches!(begun, Err(Problem::Source(_))), "{begun:?}");
    }

    #[test]
    fn a_local_socket_is_connected_at_once_or_fails() {
        let directory = crate::queue::proofs::testing::Directory::new();
        let path = directory.path().join("server");
        assert!(matches!(local(&path), Err(Problem::Server(_))));
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(!local(&path).unwrap().connecting);
    }
}
