//! `Next` and `Request`: see `postillion_core::smtp::server::Next` and `postillion_core::smtpd::request`.

use postillion_core::smtp::server;
use postillion_core::smtpd::request;
use pyo3::prelude::*;

/// The next step of a session's owner.
#[pyclass(frozen, eq, from_py_object, module = "postillion._core.smtpd", rename_all = "SCREAMING_SNAKE_CASE")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    Idle,
    Full,
    Sleep,
    Close,
    StartTls,
    Helo,
    Mail,
    Rcpt,
    Vrfy,
    Data,
    EndOfData,
    Rset,
    Noop,
    Quit,
    Auth,
    Lookup,
    Message,
}

/// Convert in both directions, each name to the same name.
macro_rules! same_names {
    ($($name:ident),*) => {
        impl From<server::Next> for Next {
            fn from(next: server::Next) -> Self {
                match next { $(server::Next::$name => Self::$name),* }
            }
        }

        impl From<Next> for server::Next {
            fn from(next: Next) -> Self {
                match next { $(Next::$name => Self::$name),* }
            }
        }
    };
}

same_names!(
    Idle, Full, Sleep, Close, StartTls, Helo, Mail, Rcpt, Vrfy, Data, EndOfData, Rset, Noop, Quit, Auth, Lookup,
    Message
);

#[pymethods]
impl Next {
    fn __hash__(&self) -> isize {
        *self as isize
    }

    #[getter]
    fn is_question(&self) -> bool {
        server::Next::from(*self).is_question()
    }
}

/// A request of the service to its owner; `key` is the connection's number.
#[pyclass(frozen, module = "postillion._core.smtpd")]
pub enum Request {
    Welcome { key: u64 },
    Decide { key: u64, next: Next },
    WakeUp { key: u64, at: f64 },
    Gone { key: u64 },
    Sweep(),
    Empty(),
    AcceptFailed { error: String },
}

impl From<request::Request> for Request {
    fn from(request: request::Request) -> Self {
        match request {
            request::Request::Welcome(key) => Self::Welcome { key: key.token() },
            request::Request::Decide(key, next) => Self::Decide { key: key.token(), next: next.into() },
            request::Request::WakeUp(key, at) => Self::WakeUp { key: key.token(), at },
            request::Request::Gone(key) => Self::Gone { key: key.token() },
            request::Request::Sweep => Self::Sweep(),
            request::Request::Empty => Self::Empty(),
            request::Request::AcceptFailed(error) => Self::AcceptFailed { error },
        }
    }
}
