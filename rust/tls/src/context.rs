//! Versions, curves and trusted authorities of a context or a connection.

use crate::identity::Problem;
use openssl::ssl::{SslContextBuilder, SslOptions, SslVersion};
use postillion_core::tls::protocols::{Protocols, VERSIONS, Version};
use std::path::Path;

/// The curves that `DEFAULT` stands for.
const DEFAULT_CURVES: [&str; 5] = ["X25519", "P-256", "X448", "P-521", "P-384"];
const DEFAULT: &str = "DEFAULT";
/// The bits that turn off a version of its own.
const OPTIONS: [(Version, SslOptions); 5] = [
    (0x0300, SslOptions::NO_SSLV3),
    (0x0301, SslOptions::NO_TLSV1),
    (0x0302, SslOptions::NO_TLSV1_1),
    (0x0303, SslOptions::NO_TLSV1_2),
    (0x0304, SslOptions::NO_TLSV1_3),
];

/// Return the options that turn off what is not allowed.
pub fn forbidden(protocols: &Protocols) -> SslOptions {
    OPTIONS.iter().filter(|(version, _)| !protocols.allows(*version)).map(|(_, option)| *option).collect()
}

/// Return the lowest version that is allowed. The library's own limits, such as those of openssl.cnf, do not count: the
/// parameters are complete.
pub fn lowest(protocols: &Protocols) -> Option<SslVersion> {
    let lowest = VERSIONS.iter().map(|(_, version)| *version).find(|version| protocols.allows(*version));
    lowest.and_then(of_library)
}

fn of_library(version: Version) -> Option<SslVersion> {
    match version {
        0x0301 => Some(SslVersion::TLS1),
        0x0302 => Some(SslVersion::TLS1_1),
        0x0303 => Some(SslVersion::TLS1_2),
        0x0304 => Some(SslVersion::TLS1_3),
        _ => None,
    }
}

/// Set the curves that the library has; return a warning for each other one.
pub fn set_curves(context: &mut SslContextBuilder, wanted: &[&str]) -> Vec<String> {
    let (mut names, mut warnings) = (Vec::new(), Vec::new());
    for word in wanted {
        let name = word.trim_start_matches('?');
        if name == DEFAULT {
            names.extend(DEFAULT_CURVES);
        } else if context.set_groups_list(name).is_ok() {
            names.push(name);
        } else if name == *word {
            warnings.push(format!("tls_eecdh_auto_curves: OpenSSL does not have \"{name}\": it is left out"));
        }
    }
    if names.is_empty() {
        names.extend(DEFAULT_CURVES);
    }
    if let Err(errors) = context.set_groups_list(&names.join(":")) {
        warnings.push(format!("tls_eecdh_auto_curves: OpenSSL refuses them: {errors}"));
    }
    warnings
}

/// The places of authorities, each with the name of its parameter.
pub struct Authorities<'a> {
    /// A file of certificates.
    pub file: (&'static str, &'a str),
    /// A directory of certificates by their hashes.
    pub path: (&'static str, &'a str),
    /// The system's authorities are trusted too.
    pub append_default: bool,
}

impl Authorities<'_> {
    /// Trust them in a context.
    pub fn load(&self, context: &mut SslContextBuilder) -> Result<(), Problem> {
        let ((file_name, file), (path_name, path)) = (self.file, self.path);
        let (file, path) = (file.trim(), path.trim());
        if !file.is_empty() {
            context.load_verify_locations(Some(Path::new(file)), None).map_err(|_| missing(file_name, file))?;
        }
        if !path.is_empty() {
            context.load_verify_locations(None, Some(Path::new(path))).map_err(|_| missing(path_name, path))?;
        }
        if self.append_default {
            context.set_default_verify_paths().map_err(|_| missing("tls_append_default_CA", "yes"))?;
        }
        Ok(())
    }
}

/// Return the problem of a place without authorities.
pub fn missing(parameter: &'static str, value: &str) -> Problem {
    Problem::new(parameter, format!("{value}: no authorities are there"), "give a file in PEM format")
}
