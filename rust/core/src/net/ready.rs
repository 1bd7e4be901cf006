//! The sockets of a poller that are ready now.

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::io;

/// Fill `events` up to its capacity, without waiting. Return whether there is any.
pub(super) fn ready(poller: impl AsFd, events: &mut Vec<Event>) -> io::Result<bool> {
    events.clear();
    match epoll::wait(poller, spare_capacity(events), Some(&Timespec::default())) {
        Ok(0) | Err(Errno::INTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
