//! The octets for the server. Their debug form is their number: they may hold a password.

use std::fmt;
use std::ops::{Deref, DerefMut};

#[derive(Default)]
pub(super) struct Output(Vec<u8>);

impl Deref for Output {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Output {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets", self.0.len())
    }
}
