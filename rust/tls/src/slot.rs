//! Data of this crate in a connection of the library.

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslRef};
use std::sync::OnceLock;

/// A place in each connection.
pub struct Slot<T>(OnceLock<Index<Ssl, T>>);

impl<T: Send + Sync + 'static> Slot<T> {
    /// Return a place that no connection uses yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Put data into a connection.
    pub fn put(&self, ssl: &mut SslRef, data: T) -> Result<(), ErrorStack> {
        let index = match self.0.get() {
            Some(index) => *index,
            None => {
                let made = Ssl::new_ex_index()?;
                *self.0.get_or_init(|| made)
            }
        };
        ssl.set_ex_data(index, data);
        Ok(())
    }

    /// Return the data of a connection.
    pub fn of<'a>(&self, ssl: &'a SslRef) -> Option<&'a T> {
        ssl.ex_data(*self.0.get()?)
    }
}
