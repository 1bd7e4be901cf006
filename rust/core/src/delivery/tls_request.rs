//! A sender's request about TLS on the message's way (RFC 8689).

use super::settings::ConnectionSettings;
use crate::mail::envelope::Envelope;

/// A sender's request. Mail shares connections only with mail of the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsRequest {
    /// None: the site decides.
    #[default]
    Usual,
    /// `TLS-Required: no`: delivery matters more than TLS.
    Waived,
    /// REQUIRETLS: no delivery without TLS to a verified server.
    Required,
}

impl TlsRequest {
    /// Return the request of a message, as far as the site obeys it. REQUIRETLS comes first (RFC 8689 §4.1).
    pub fn of(envelope: &Envelope, settings: &ConnectionSettings) -> Self {
        if envelope.requiretls && settings.requiretls {
            Self::Required
        } else if envelope.waives_tls() && settings.tls_required {
            Self::Waived
        } else {
            Self::Usual
        }
    }

    /// Return its word for the owner.
    pub fn word(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Waived => "waived",
            Self::Required => "required",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::QueueId;

    #[test]
    fn requiretls_comes_before_the_header_and_the_site_before_both() {
        for (requiretls, header, obeys, expected) in [
            (false, false, (true, true), TlsRequest::Usual),
            (false, true, (true, true), TlsRequest::Waived),
            (true, false, (true, true), TlsRequest::Required),
            (true, true, (true, true), TlsRequest::Required),
            (true, true, (false, true), TlsRequest::Waived),
            (true, false, (false, true), TlsRequest::Usual),
            (false, true, (true, false), TlsRequest::Usual),
            (true, true, (false, false), TlsRequest::Usual),
        ] {
            let mut envelope = Envelope { requiretls, ..Envelope::plain(QueueId(1), "s", vec![]) };
            if header {
                envelope.waive_tls();
            }
            let settings =
                ConnectionSettings { requiretls: obeys.0, tls_required: obeys.1, ..ConnectionSettings::default() };
            assert_eq!(TlsRequest::of(&envelope, &settings), expected, "{requiretls} {header} {obeys:?}");
        }
    }
}
