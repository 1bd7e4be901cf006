//! The parameters of an agent's connections, by their names in postconf(5).

use crate::settings;
use crate::settings::{Source, seconds};
use crate::smtp::client::{Lmtp, Protocol};
use std::collections::HashSet;

settings! {
    /// The parameters of all connections of an agent. Times are seconds.
    #[derive(Debug, Clone)]
    pub struct ConnectionSettings {
        /// Keep a connection while there is demand for it.
        on_demand: bool = "smtp_connection_cache_on_demand",
        /// Next hops whose connections are always kept, in lower case.
        destinations: HashSet<String> = names "smtp_connection_cache_destinations",
        /// Longest time that a connection waits for the next job.
        time_limit: f64 = seconds "smtp_connection_cache_time_limit",
        /// Longest time that a connection gets further jobs.
        reuse_time_limit: f64 = seconds "smtp_connection_reuse_time_limit",
        /// Maximum number of jobs that follow the first one; 0 for no limit.
        reuse_count_limit: u32 = "smtp_connection_reuse_count_limit",
        /// Maximum number of servers that see a job; 0 for no limit.
        session_limit: u32 = "smtp_mx_session_limit",
        /// Timeout of a connection attempt; 0 for none.
        connect_timeout: f64 = seconds "smtp_connect_timeout",
        /// Tell the owner about TLS sessions.
        reports_tls: bool = "smtp_tlsrpt_enable",
        /// Tell the owner about refused logins: it names a table for them.
        notes_refusals: bool = is_set "smtp_sasl_auth_cache_name",
        /// The header `TLS-Required: no` has an effect.
        tls_required: bool = "tls_required_enable",
        /// REQUIRETLS has an effect.
        requiretls: bool = "requiretls_enable",
        /// Connect from the source address alone.
        bind_address_enforce: bool = "smtp_bind_address_enforce",
    }
}

fn names<S: Source>(source: &S, name: &str) -> Result<HashSet<String>, S::Error> {
    Ok(source.items(name)?.into_iter().map(|word| word.to_lowercase()).collect())
}

fn is_set<S: Source>(source: &S, name: &str) -> Result<bool, S::Error> {
    Ok(!source.text(name)?.trim().is_empty())
}

impl ConnectionSettings {
    /// Read the parameters of a client of this protocol.
    pub fn read_for<S: Source>(protocol: Protocol, source: &S) -> Result<Self, S::Error> {
        match protocol {
            Protocol::Smtp => Self::read(source),
            Protocol::Lmtp => Self::read(&Lmtp(source)),
        }
    }
}
