//! The context that all connections of a client share.

use crate::context::{Authorities, forbidden, lowest, set_curves};
use crate::identity::{self, Pairs, Problem, pairs};
use crate::link::{self, Link};
use crate::resume::Sessions;
use crate::session::Session;
use crate::{anchors, failure, ffi, verify};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSession, SslSessionCacheMode,
    SslVerifyMode,
};
use openssl::x509::verify::X509CheckFlags;
use postillion_core::tls::client_settings::{ClientTls, Wanted};
use postillion_core::tls::dane::{CERTIFICATE, END_ENTITY, PUBLIC_KEY, Tlsa};
use postillion_core::tls::{ClientEngines, ClientLevel, Engine, Failure, Policy};
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A fingerprint is a TLSA record of this private matching type (RFC 7218 §2.3).
const FINGERPRINT: u8 = 255;
/// OpenSSL's security level where the server must show who it is, as in Postfix: no key or signature below 80 bits.
const SECURITY_OF_MATCHES: u32 = 1;

/// The parameter, for problems of which only the text is told.
const TRUST_ANCHOR_FILE: &str = "smtp_tls_trust_anchor_file";

/// The prefix of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// `smtp_`
    Smtp,
    /// `lmtp_`
    Lmtp,
}

/// The client's side of all its TLS connections.
pub struct Client {
    context: SslContext,
    settings: ClientTls,
    /// The cipher list of the context: other connections have one of their own.
    cipher_list: String,
    anchors: Vec<Tlsa>,
    sessions: Option<Arc<Sessions<SslSession>>>,
    /// Problems that do not keep the client from its work.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Return the context of these parameters, with all files read. Errors: the parameter that cannot be used.
    pub fn new(settings: ClientTls, prefix: Prefix) -> Result<Self, Problem> {
        let names = prefix.names();
        let refused = |errors: ErrorStack| {
            let text = format!("OpenSSL refuses: {errors}");
            Problem::new(names.security_level, text, "look at the settings of OpenSSL (openssl.cnf)")
        };
        let mut context = SslContext::builder(SslMethod::tls_client()).map_err(refused)?;
        // The cipher list says what is allowed.
        context.set_security_level(0);
        context
            .set_mode(SslMode::RELEASE_BUFFERS | SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
        context.set_options(SslOptions::ALL | SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION);
        let opportunistic = settings.policy(Wanted { level: ClientLevel::May, ..Wanted::default() });
        let cipher_list = opportunistic.map(|policy| policy.cipher_list).unwrap_or_default();
        // A list without ciphers is a problem of the connections that want it.
        let cipher_list = if context.set_cipher_list(&cipher_list).is_ok() { cipher_list } else { String::new() };
        let warnings = set_curves(&mut context, &settings.curves());
        set_digests(&mut context, &settings, names)?;
        identity::load_files(&mut context, &prefix.files(&settings))?;
        let anchors = trust_anchors(names.trust_anchor_file, &settings.trust_anchor_files)?;
        let authorities = Authorities {
            file: (names.ca_file, &settings.ca_file),
            path: (names.ca_path, &settings.ca_path),
            append_default: settings.append_default_ca,
        };
        authorities.load(&mut context)?;
        let limit = settings.scert_verifydepth.saturating_add(1);
        context.set_verify_depth(limit);
        // The server's certificate never ends the handshake: the policy decides behind it.
        context.set_verify_callback(SslVerifyMode::NONE, move |is_good, store| {
            verify::note(is_good, store, "server", limit)
        });
        let sessions = settings.session_lifetime_s().map(Duration::from_secs_f64).map(Sessions::new).map(Arc::new);
        if sessions.is_some() {
            context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
            context.set_new_session_callback(link::keep);
        } else {
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
        }
        Ok(Self { context: context.build(), settings, cipher_list, anchors, sessions, warnings })
    }

    /// Return the policy of a connection. Errors: the text for the log, which the caller attributes to a table.
    ///
    /// Unusable TLSA records are left out. Without any, `dane` becomes `encrypt` (RFC 7672 §2.2), and `dane-only`
    /// is an error. At `verify` and `secure`, trust anchors of the destination take the place of those of main.cf.
    pub fn policy(&self, mut wanted: Wanted<'_>) -> Result<Policy, String> {
        if wanted.level.is_dane() {
            let digests = &self.settings.dane_digests;
            wanted.tlsa.retain(|tlsa| tlsa.is_usable(digests) && self.is_usable(tlsa));
            if wanted.tlsa.is_empty() && wanted.level != ClientLevel::DaneOnly {
                wanted.level = ClientLevel::Encrypt;
            }
        } else if !wanted.level.matches_names() {
            wanted.tlsa.clear();
        } else if wanted.trust_anchor_files.is_empty() {
            wanted.tlsa.clone_from(&self.anchors);
        } else {
            let anchors = trust_anchors(TRUST_ANCHOR_FILE, &wanted.trust_anchor_files);
            wanted.tlsa = anchors.map_err(|problem| problem.text)?;
        }
        let policy = self.settings.policy(wanted)?;
        if policy.level > ClientLevel::Off {
            self.prepare(&policy)?;
        }
        Ok(policy)
    }

    /// Return the number of TLS sessions that a connection may resume.
    pub fn sessions(&self) -> usize {
        self.sessions.as_ref().map_or(0, |sessions| sessions.len())
    }

    /// Return a connection with everything that a policy wants. Errors: what the library cannot do.
    fn prepare(&self, policy: &Policy) -> Result<Ssl, String> {
        let refused = |errors: ErrorStack| format!("OpenSSL refuses: {errors}");
        let mut ssl = Ssl::new(&self.context).map_err(refused)?;
        if policy.cipher_list != self.cipher_list || self.cipher_list.is_empty() {
            let no_cipher = |_| format!("no cipher of OpenSSL is in the list \"{}\"", policy.cipher_list);
            ssl.set_cipher_list(&policy.cipher_list).map_err(no_cipher)?;
        }
        ffi::client::set_options(&mut ssl, forbidden(&policy.protocols));
        ssl.set_min_proto_version(lowest(&policy.protocols)).map_err(refused)?;
        ssl.set_max_proto_version(None).map_err(refused)?;
        if policy.level.must_match() {
            ssl.set_security_level(SECURITY_OF_MATCHES);
        }
        add_records(&mut ssl, policy)?;
        self.add_names(&mut ssl, policy)?;
        if let Some(name) = &policy.servername {
            ssl.set_hostname(name).map_err(refused)?;
        }
        Ok(ssl)
    }

    fn add_names(&self, ssl: &mut SslRef, policy: &Policy) -> Result<(), String> {
        if !policy.level.matches_names() {
            return Ok(());
        }
        // Without a name the library would take any.
        if policy.names.is_empty() {
            return Err(format!("no name to match at level {}", policy.level.name()));
        }
        // As in Postfix since 3.6, `*` stands for one whole label.
        ssl.param_mut().set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
        policy.names.iter().try_for_each(|name| {
            let added = CString::new(&**name).is_ok_and(|name| ffi::client::add_name(ssl, &name).is_ok());
            if added { Ok(()) } else { Err(format!("OpenSSL refuses the name \"{name}\"")) }
        })
    }

    /// Return whether the library can use a TLSA record.
    fn is_usable(&self, tlsa: &Tlsa) -> bool {
        let mut ssl = match Ssl::new(&self.context) {
            Ok(ssl) if tlsa.usage != FINGERPRINT => ssl,
            _ => return false,
        };
        ffi::client::use_dane(&mut ssl, false).is_ok() && add(&mut ssl, tlsa) == Ok(true)
    }
}

impl ClientEngines for Client {
    fn connect(&self, policy: &Arc<Policy>) -> Result<Box<dyn Engine>, Failure> {
        if policy.level == ClientLevel::Off {
            return Err(Failure { problems: vec!["level none has no TLS".into()], ..Failure::default() });
        }
        let mut ssl =
            self.prepare(policy).map_err(|problem| Failure { problems: vec![problem], ..Failure::default() })?;
        let of_library = |errors: ErrorStack| failure(&errors);
        let sessions = self.sessions.as_ref().filter(|_| !policy.session_key.is_empty()).cloned();
        if let Some(session) = sessions.as_ref().and_then(|sessions| sessions.find(policy, Instant::now())) {
            ffi::client::resume(&mut ssl, &session).map_err(of_library)?;
        }
        link::put(&mut ssl, Link { policy: Arc::clone(policy), sessions }).map_err(of_library)?;
        Ok(Box::new(Session::connecting(ssl).map_err(of_library)?))
    }
}

/// Add the TLSA records of a policy: those of DANE, or trust anchors, or fingerprints.
fn add_records(ssl: &mut SslRef, policy: &Policy) -> Result<(), String> {
    let mut records = if policy.level.matches_names() { policy.tlsa.clone() } else { Vec::new() };
    if policy.level == ClientLevel::Fingerprint {
        for data in &policy.fingerprints {
            let of = |selector| Tlsa { usage: END_ENTITY, selector, matching: FINGERPRINT, data: data.clone() };
            records.extend([of(CERTIFICATE), of(PUBLIC_KEY)]);
        }
    }
    let needs_records = policy.level.is_dane() || policy.level == ClientLevel::Fingerprint;
    if records.is_empty() {
        // Without a record the library would ask the authorities.
        let missing = || Err(format!("nothing to match at level {}", policy.level.name()));
        return if needs_records { missing() } else { Ok(()) };
    }
    // A trust anchor is a record with usage 3, too: it may be the server's own certificate, which still needs a name.
    let needs_name = policy.level.matches_names() && !policy.level.is_dane();
    ffi::client::use_dane(ssl, needs_name).map_err(|errors| format!("OpenSSL refuses DANE: {errors}"))?;
    for record in &records {
        match add(ssl, record) {
            Ok(true) => {}
            Ok(false) if record.matching == FINGERPRINT => {
                return Err(format!("a fingerprint has not the length of {}", policy.digest));
            }
            Ok(false) => return Err("OpenSSL cannot use a TLSA record or trust anchor".into()),
            Err(text) => return Err(text),
        }
    }
    Ok(())
}

fn add(ssl: &mut SslRef, record: &Tlsa) -> Result<bool, String> {
    let Tlsa { usage, selector, matching, data } = record;
    let added = ffi::client::add_record(ssl, *usage, *selector, *matching, data);
    added.map_err(|errors| format!("OpenSSL refuses a TLSA record: {errors}"))
}

/// Set the digests of TLSA records and fingerprints.
fn set_digests(context: &mut SslContextBuilder, settings: &ClientTls, names: &Names) -> Result<(), Problem> {
    let unknown = |parameter, digest: &str| {
        Problem::new(parameter, format!("OpenSSL does not have the digest \"{digest}\""), "give sha256 or sha512")
    };
    let refused = |errors: ErrorStack| {
        Problem::new("tls_dane_digests", format!("OpenSSL refuses them: {errors}"), "give sha512 and sha256")
    };
    ffi::client::enable_dane(context).map_err(refused)?;
    for (order, (name, matching)) in (1..).zip(settings.dane_digests.known.iter().rev()) {
        let digest = MessageDigest::from_name(name).ok_or_else(|| unknown("tls_dane_digests", name))?;
        ffi::client::set_digest(context, digest, *matching, order).map_err(refused)?;
    }
    let name = settings.fingerprint_digest.trim();
    let digest = MessageDigest::from_name(name).ok_or_else(|| unknown(names.fingerprint_digest, name))?;
    ffi::client::set_digest(context, digest, FINGERPRINT, 1).map_err(|_| unknown(names.fingerprint_digest, name))
}

/// Return the trust anchors of the files of a parameter.
fn trust_anchors(parameter: &'static str, files: &[String]) -> Result<Vec<Tlsa>, Problem> {
    let mut anchors = Vec::new();
    for file in files {
        let text = identity::read(parameter, file)?;
        let problem = |text| Problem::new(parameter, format!("{file}: {text}"), "give certificates or public keys");
        anchors.extend(anchors::parse(&text).map_err(problem)?);
    }
    Ok(anchors)
}

/// The names of parameters in problems.
struct Names {
    security_level: &'static str,
    ca_file: &'static str,
    ca_path: &'static str,
    trust_anchor_file: &'static str,
    fingerprint_digest: &'static str,
}

macro_rules! names {
    ($prefix:literal) => {
        &Names {
            security_level: concat!($prefix, "_tls_security_level"),
            ca_file: concat!($prefix, "_tls_CAfile"),
            ca_path: concat!($prefix, "_tls_CApath"),
            trust_anchor_file: concat!($prefix, "_tls_trust_anchor_file"),
            fingerprint_digest: concat!($prefix, "_tls_fingerprint_digest"),
        }
    };
}

impl Prefix {
    fn names(self) -> &'static Names {
        match self {
            Self::Smtp => names!("smtp"),
            Self::Lmtp => names!("lmtp"),
        }
    }

    fn files(self, settings: &ClientTls) -> Pairs<'_> {
        match self {
            Self::Smtp => pairs!(settings, "smtp"),
            Self::Lmtp => pairs!(settings, "lmtp"),
        }
    }
}
