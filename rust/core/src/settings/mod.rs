//! Parameters of main.cf as fields of a struct. `settings!` declares a parameter's Rust side in one line: the field, its
//! type and Postfix's name.
//!
//! The type decides how a value is read (`Value`). A default stands once, in the parameter table (`defaults`), which
//! postconf and the programs in Python read too. `read` takes the values of a `Source`, such as a site's main.cf;
//! `Default` takes those of the table.

pub mod defaults;

use crate::lookup::Maps;

/// A source of the values of parameters.
pub trait Source {
    /// An error names the parameter and what it may be; from main.cf, with file and line.
    type Error: std::fmt::Display;

    /// Return the expanded text of a parameter.
    fn text(&self, name: &str) -> Result<String, Self::Error>;
    /// Return a whole number.
    fn number(&self, name: &str) -> Result<i64, Self::Error>;
    /// Return a time in seconds.
    fn seconds(&self, name: &str) -> Result<f64, Self::Error>;
    /// Return the value of a yes-or-no parameter.
    fn flag(&self, name: &str) -> Result<bool, Self::Error>;
    /// Return the words of a list.
    fn items(&self, name: &str) -> Result<Vec<String>, Self::Error>;
    /// Return the tables of a list such as `virtual_alias_maps`.
    fn maps(&self, name: &str) -> Result<Maps, Self::Error>;
    /// Return a table that is a word of a list: `hash:/etc/postfix/names` in `masquerade_exceptions`.
    fn table(&self, name: &str, word: &str) -> Result<Maps, Self::Error>;
    /// Return the error for a value that a field cannot hold. `fix`: what to do, such as "give a smaller number".
    fn bad(&self, name: &str, value: &str, fix: &str) -> Self::Error;
}

/// A type of fields: how the value of a parameter is read.
pub trait Value: Sized {
    /// Return the value of the parameter `name`.
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error>;
}

impl Value for bool {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        source.flag(name)
    }
}

impl Value for String {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        source.text(name)
    }
}

impl Value for Box<str> {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        Ok(source.text(name)?.into())
    }
}

impl<T: From<String>> Value for Vec<T> {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        Ok(source.items(name)?.into_iter().map(T::from).collect())
    }
}

impl Value for Maps {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        source.maps(name)
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {$(
        impl Value for $type {
            fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
                let value = source.number(name)?;
                let fix = concat!("give a number that fits ", stringify!($type));
                Self::try_from(value).map_err(|_| source.bad(name, &value.to_string(), fix))
            }
        }
    )*};
}
whole_numbers!(u16 u32 u64 usize);

/// Read a time in seconds.
pub fn seconds<S: Source>(source: &S, name: &str) -> Result<f64, S::Error> {
    source.seconds(name)
}

/// Read a time in microseconds.
pub fn micros<S: Source>(source: &S, name: &str) -> Result<u64, S::Error> {
    Ok((source.seconds(name)? * 1e6) as u64)
}

/// Read a list of keywords, in upper case.
pub fn keywords<S: Source>(source: &S, name: &str) -> Result<Vec<String>, S::Error> {
    Ok(source.items(name)?.into_iter().map(|word| word.to_ascii_uppercase()).collect())
}

/// Declare a struct of parameters, with `read` and `Default`. A line of it is one of:
///
/// ```text
/// soft_error_limit: u32 = "smtpd_soft_error_limit"        a parameter, read as its type says
/// error_sleep_s: f64 = seconds "smtpd_error_sleep_time"   a parameter, read by a function of a source and a name
/// syntax: Syntax => settings                              another struct of parameters
/// asks_helo: bool                                         no parameter: its type's default, the program sets it
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $struct:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty $(= $($reader:ident)::* $name:literal)? $(=> $group:ident)?),* $(,)?
        }
    ) => {
        $(#[$about])*
        pub struct $struct {
            $($(#[doc = concat!("`", $name, "`\n")])? $(#[$doc])* pub $field: $type,)*
        }

        impl $struct {
            /// Read every parameter from `source`.
            pub fn read<S: $crate::settings::Source>(source: &S) -> Result<Self, S::Error> {
                Ok(Self { $($field: $crate::settings!(@read source, $type $(, $($reader)::* $name)? $(, $group)?),)* })
            }
        }

        impl Default for $struct {
            /// Return the defaults of the parameter table.
            fn default() -> Self {
                $crate::settings::defaults::read(Self::read)
            }
        }
    };
    (@read $source:ident, $type:ty, settings) => { <$type>::read($source)? };
    (@read $source:ident, $type:ty, $name:literal) => { <$type as $crate::settings::Value>::read($source, $name)? };
    (@read $source:ident, $type:ty, $($reader:ident)::+ $name:literal) => { $($reader)::+($source, $name)? };
    (@read $source:ident, $type:ty) => { <$type>::default() };
}
