//! The context that all sessions of a server share.

use crate::context::{self, Authorities, forbidden, lowest, set_curves};
use crate::files::Files;
use crate::guest::Guest;
use crate::identity;
pub use crate::identity::{Expiry, Problem};
use crate::renewal::Followed;
pub use crate::renewal::Refusal;
use crate::session::Session;
use crate::sni::Chains;
use crate::tickets::{self, Root, Tickets};
use crate::{failure, ffi, options, verify};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::sha::sha256;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVerifyMode,
};
use openssl::x509::X509Name;
use postillion_core::tls::settings::{Level, ServerTls};
use postillion_core::tls::{Engine, Engines, Failure};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Parts of a server beside its parameters.
pub struct Parts {
    /// The chains of `tls_server_sni_maps`.
    pub chains: Chains,
    /// The secret of session tickets; `None` for one of its own.
    pub root: Option<Root>,
}

/// The server's side of all its TLS connections.
pub struct Server {
    settings: ServerTls,
    chains: Arc<Chains>,
    /// Of fingerprints.
    digest: MessageDigest,
    /// Sessions can be resumed.
    tickets: Option<Arc<Tickets>>,
    /// For new connections. An open one keeps the context that it began with.
    made: RwLock<Made>,
    followed: Mutex<Followed>,
}

/// A context, and the facts about it.
struct Made {
    context: SslContext,
    warnings: Vec<String>,
    expiries: Vec<Expiry>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// Return the context of these parameters, with all files read. Errors: the parameter that cannot be used.
    pub fn new(settings: &ServerTls, parts: Parts) -> Result<Self, Problem> {
        let chains = Arc::new(parts.chains);
        let digest = digest_of(settings)?;
        let tickets = tickets_of(settings, parts.root)?.map(Arc::new);
        let files = Files::open(files(settings));
        let stamp = files.stamp();
        let made = RwLock::new(Made::new(settings, &chains, tickets.as_deref())?);
        let followed = Mutex::new(Followed::new(files, stamp));
        Ok(Self { settings: settings.clone(), chains, digest, tickets, made, followed })
    }

    /// Return problems that do not keep the server from its work.
    pub fn warnings(&self) -> Vec<String> {
        self.made().warnings.clone()
    }

    /// Return when each chain expires.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.made().expiries.clone()
    }

    /// Whether the files have changed since they were read, and have stayed the same since the last call.
    pub fn has_changed(&self) -> bool {
        self.followed().has_changed()
    }

    /// Read the files again: new connections use them. Errors: why the old ones stay in use.
    pub fn renew(&self) -> Result<(), Refusal> {
        let files = Files::open(files(&self.settings));
        let stamp = files.stamp();
        match Made::new(&self.settings, &self.chains, self.tickets.as_deref()) {
            Ok(made) => {
                *self.made.write().unwrap_or_else(PoisonError::into_inner) = made;
                *self.followed() = Followed::new(files, stamp);
                Ok(())
            }
            Err(problem) => Err(self.followed().refused(problem)),
        }
    }

    fn made(&self) -> RwLockReadGuard<'_, Made> {
        self.made.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Return the names of the files that are read once.
fn files(settings: &ServerTls) -> impl Iterator<Item = &Path> {
    let authorities = settings.asks_for_certificate().then(|| settings.ca_file.trim());
    identity::files(settings).chain(authorities.filter(|file| !file.is_empty()).map(Path::new))
}

impl Made {
    fn new(settings: &ServerTls, chains: &Arc<Chains>, tickets: Option<&Tickets>) -> Result<Self, Problem> {
        let mut context = SslContext::builder(SslMethod::tls_server()).map_err(refused)?;
        // The cipher list says what is allowed.
        context.set_security_level(0);
        context
            .set_mode(SslMode::RELEASE_BUFFERS | SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
        let (wanted, mut warnings) = options::of(settings);
        context.set_options(wanted);
        context.clear_options(SslOptions::ALL & !wanted);
        if settings.preempt_cipherlist {
            context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        }
        resume(&mut context, settings, tickets).map_err(refused)?;
        let protocols = settings.allowed_protocols();
        context.set_options(forbidden(protocols));
        context.set_min_proto_version(lowest(protocols)).map_err(refused)?;
        context.set_max_proto_version(None).map_err(refused)?;
        let list = settings.cipher_list();
        context.set_cipher_list(&list).map_err(|_| {
            let text = format!("no cipher of OpenSSL is in the list \"{list}\"");
            let is_required = settings.level() == Level::Encrypt;
            let parameter = if is_required { "smtpd_tls_mandatory_ciphers" } else { "smtpd_tls_ciphers" };
            Problem::new(parameter, text, "exclude less")
        })?;
        ffi::choose_dh_parameters(&mut context);
        let cipher = settings.ticket_cipher.trim();
        if tickets.is_none() && !cipher.is_empty() && settings.session_cache_timeout_s > 0.0 {
            let text = format!("tls_session_ticket_cipher: invalid value: {cipher}; session tickets disabled");
            warnings.push(text);
        }
        warnings.extend(set_curves(&mut context, &settings.curves()));
        let expiries = identity::load(&mut context, settings)?;
        ask_for_certificate(&mut context, settings)?;
        chains.serve(&mut context);
        Ok(Self { context: context.build(), warnings, expiries })
    }
}

impl Engines for Server {
    fn accept(&self) -> Result<Box<dyn Engine>, Failure> {
        let mut ssl = Ssl::new(&self.made().context).map_err(|errors| failure(&errors))?;
        Guest::new(self.tickets.clone(), self.digest).enter(&mut ssl).map_err(|errors| failure(&errors))?;
        Ok(Box::new(Session::new(ssl).map_err(|errors| failure(&errors))?))
    }
}

fn refused(errors: ErrorStack) -> Problem {
    let text = format!("OpenSSL refuses: {errors}");
    Problem::new("smtpd_tls_security_level", text, "look at the settings of OpenSSL (openssl.cnf)")
}

fn digest_of(settings: &ServerTls) -> Result<MessageDigest, Problem> {
    let name = settings.fingerprint_digest.trim();
    MessageDigest::from_name(name).ok_or_else(|| {
        Problem::new("smtpd_tls_fingerprint_digest", format!("OpenSSL has no digest \"{name}\""), "give sha256")
    })
}

/// Return the keys of session tickets; `None` if no session can be resumed.
fn tickets_of(settings: &ServerTls, root: Option<Root>) -> Result<Option<Tickets>, Problem> {
    let name = settings.ticket_cipher.trim();
    let is_wanted = !name.is_empty() && settings.session_cache_timeout_s > 0.0;
    let Some(cipher) = is_wanted.then(|| tickets::cipher(name)).flatten() else { return Ok(None) };
    let root = root.map_or_else(Root::draw, Ok).map_err(refused)?;
    Ok(Some(Tickets::new(&root, cipher, settings.session_cache_timeout_s)))
}

/// Let clients resume their sessions by tickets, which have all of a session: nothing is kept here.
fn resume(context: &mut SslContextBuilder, settings: &ServerTls, tickets: Option<&Tickets>) -> Result<(), ErrorStack> {
    // Some clients need an ID although it cannot be used.
    let ids = SslSessionCacheMode::SERVER | SslSessionCacheMode::NO_INTERNAL;
    context.set_session_cache_mode(if settings.always_issue_session_ids { ids } else { SslSessionCacheMode::OFF });
    // A service with other rules, such as other trusted authorities, does not take the session.
    context.set_session_id_context(&sha256(format!("{settings:?}").as_bytes()))?;
    match tickets {
        Some(tickets) if !context.options().contains(SslOptions::NO_TICKET) => {
            ffi::tickets::serve(context, tickets.lifetime_s());
            context.set_num_tickets(1)
        }
        _ => {
            context.set_options(SslOptions::NO_TICKET);
            context.set_num_tickets(0)
        }
    }
}

fn ask_for_certificate(context: &mut SslContextBuilder, settings: &ServerTls) -> Result<(), Problem> {
    if !settings.asks_for_certificate() {
        return Ok(());
    }
    let authorities = Authorities {
        file: ("smtpd_tls_CAfile", &settings.ca_file),
        path: ("smtpd_tls_CApath", &settings.ca_path),
        append_default: settings.append_default_ca,
    };
    authorities.load(context)?;
    let file = settings.ca_file.trim();
    if !file.is_empty() {
        let names = X509Name::load_client_ca_file(file).map_err(|_| context::missing("smtpd_tls_CAfile", file))?;
        context.set_client_ca_list(names);
    }
    // As in Postfix: 0 still allows one authority between the client and the trusted one.
    let limit = settings.ccert_verifydepth.saturating_add(1);
    context.set_verify_depth(limit);
    context
        .set_verify_callback(SslVerifyMode::PEER, move |is_good, store| verify::note(is_good, store, "client", limit));
    Ok(())
}
