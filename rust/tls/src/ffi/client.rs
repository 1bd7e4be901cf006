//! Calls for clients: DANE, names, and earlier sessions.

use foreign_types_shared::{ForeignType, ForeignTypeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::{SslContextBuilder, SslOptions, SslRef, SslSession, SslSessionRef};
use openssl_sys as sys;
use postillion_core::tls::dane::Tlsa;
use postillion_core::tls::facts::MatchedRecord;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_ulong};
use std::ptr;

/// `DANE_FLAG_NO_DANE_EE_NAMECHECKS`
const NO_NAMES_OF_END_ENTITIES: c_ulong = 1;

unsafe extern "C" {
    fn SSL_CTX_dane_enable(context: *mut sys::SSL_CTX) -> c_int;
    fn SSL_CTX_dane_mtype_set(context: *mut sys::SSL_CTX, md: *const sys::EVP_MD, matching: u8, order: u8) -> c_int;
    fn SSL_dane_enable(ssl: *mut sys::SSL, base_domain: *const c_char) -> c_int;
    fn SSL_dane_set_flags(ssl: *mut sys::SSL, flags: c_ulong) -> c_ulong;
    fn SSL_dane_tlsa_add(
        ssl: *mut sys::SSL,
        usage: u8,
        selector: u8,
        matching: u8,
        data: *const c_uchar,
        octets: usize,
    ) -> c_int;
    fn SSL_get0_peername(ssl: *mut sys::SSL) -> *const c_char;
    fn SSL_get0_dane_authority(
        ssl: *mut sys::SSL,
        certificate: *mut *mut sys::X509,
        key: *mut *mut sys::EVP_PKEY,
    ) -> c_int;
    fn SSL_get0_dane_tlsa(
        ssl: *mut sys::SSL,
        usage: *mut u8,
        selector: *mut u8,
        matching: *mut u8,
        data: *mut *const c_uchar,
        octets: *mut usize,
    ) -> c_int;
    fn SSL_add1_host(ssl: *mut sys::SSL, name: *const c_char) -> c_int;
    fn SSL_SESSION_dup(session: *const sys::SSL_SESSION) -> *mut sys::SSL_SESSION;
    // The type of the options is 64 bits wide since OpenSSL 3.
    fn SSL_set_options(ssl: *mut sys::SSL, options: u64) -> u64;
}

/// Let connections of a context use TLSA records.
pub fn enable_dane(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    // SAFETY: the context lives during the call.
    succeeded(unsafe { SSL_CTX_dane_enable(context.as_ptr()) })
}

/// Set the digest of a matching type. Records with the digest of the highest order count, where there are several.
pub fn set_digest(
    context: &mut SslContextBuilder,
    digest: MessageDigest,
    matching: u8,
    order: u8,
) -> Result<(), ErrorStack> {
    // SAFETY: the context lives during the call. A digest of the crate lives as long as the library.
    succeeded(unsafe { SSL_CTX_dane_mtype_set(context.as_ptr(), digest.as_ptr(), matching, order) })
}

/// Let TLSA records decide about the server of a connection. `needs_name`: with usage 3, too, the certificate needs one of
/// the names.
pub fn use_dane(ssl: &mut SslRef, needs_name: bool) -> Result<(), ErrorStack> {
    // SAFETY: the connection lives during both calls. Without a base domain the names are those of `add_name`.
    unsafe {
        succeeded(SSL_dane_enable(ssl.as_ptr(), ptr::null()))?;
        if !needs_name {
            SSL_dane_set_flags(ssl.as_ptr(), NO_NAMES_OF_END_ENTITIES);
        }
    }
    Ok(())
}

/// Add a TLSA record; return whether the library can use it.
pub fn add_record(ssl: &mut SslRef, usage: u8, selector: u8, matching: u8, data: &[u8]) -> Result<bool, ErrorStack> {
    // SAFETY: connection and data live during the call, which copies the data.
    let added = unsafe { SSL_dane_tlsa_add(ssl.as_ptr(), usage, selector, matching, data.as_ptr(), data.len()) };
    // An unusable record leaves its reason in the queue of errors; a failure is a negative number.
    let errors = ErrorStack::get();
    if added < 0 { Err(errors) } else { Ok(added > 0) }
}

/// Add a name of which the certificate needs one. `.example.com`: each name below.
pub fn add_name(ssl: &mut SslRef, name: &CStr) -> Result<(), ErrorStack> {
    // SAFETY: connection and name live during the call, which copies the name.
    succeeded(unsafe { SSL_add1_host(ssl.as_ptr(), name.as_ptr()) })
}

/// Return the name of the server's certificate that is one of `add_name`.
pub fn matched_name(ssl: &SslRef) -> Option<String> {
    // SAFETY: the connection lives during both calls. The text belongs to it, ends with NUL, and is copied.
    unsafe {
        let name = SSL_get0_peername(ssl.as_ptr());
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Return the TLSA record that has matched.
pub fn matched_record(ssl: &SslRef) -> Option<MatchedRecord> {
    let (mut usage, mut selector, mut matching) = (0, 0, 0);
    let (mut data, mut octets, mut key) = (ptr::null(), 0, ptr::null_mut());
    // SAFETY: the connection lives during the calls, which write numbers and pointers. The connection owns the
    // key and the data, which is copied.
    unsafe {
        let depth = SSL_get0_dane_authority(ssl.as_ptr(), ptr::null_mut(), &raw mut key);
        let (fields, found) =
            ((&raw mut usage, &raw mut selector, &raw mut matching), (&raw mut data, &raw mut octets));
        let has_record = SSL_get0_dane_tlsa(ssl.as_ptr(), fields.0, fields.1, fields.2, found.0, found.1) >= 0;
        let depth = u32::try_from(depth).ok().filter(|_| has_record && !data.is_null())?;
        let data = std::slice::from_raw_parts(data, octets).to_vec();
        Some(MatchedRecord { depth, is_signer: !key.is_null(), tlsa: Tlsa { usage, selector, matching, data } })
    }
}

/// Set options of one connection.
pub fn set_options(ssl: &mut SslRef, options: SslOptions) {
    // SAFETY: the connection lives during the call, which sets flags in it.
    unsafe { SSL_set_options(ssl.as_ptr(), options.bits()) };
}

/// Offer an earlier session of the same context to the server.
///
/// The connection has a copy of it. The library lets each object be resumed only once with TLS 1.3, but a server need not
/// send a new ticket then.
pub fn resume(ssl: &mut SslRef, session: &SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: the session lives during the call, which returns a new one or null.
    let copy = unsafe { SSL_SESSION_dup(session.as_ptr()) };
    if copy.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: nobody else owns the copy. The crate wants a session of the same context: a `Client` has one context and its
    // own cache of sessions.
    unsafe { ssl.set_session(&SslSession::from_ptr(copy)) }
}

fn succeeded(code: c_int) -> Result<(), ErrorStack> {
    if code > 0 { Ok(()) } else { Err(ErrorStack::get()) }
}
