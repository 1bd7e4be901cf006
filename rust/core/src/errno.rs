//! The system's texts of errors.

use std::io;

/// Return the text of an error without its number: `Connection refused`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.find(" (os error").map_or(text.clone(), |at| text[..at].to_owned())
}
