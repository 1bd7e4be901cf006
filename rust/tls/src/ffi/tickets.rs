//! The library's callback for session tickets (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)).

use crate::tickets::{self, Opened};
use foreign_types_shared::ForeignTypeRef;
use openssl::cipher_ctx::CipherCtxRef;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl_sys as sys;
use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_uint, c_void};
use std::ptr;

const FAILED: c_int = -1;
/// The ticket is not ours, or its key is too old: the handshake goes on in full.
const UNKNOWN: c_int = 0;
const USED: c_int = 1;
/// The ticket is good, and the client gets a new one.
const USED_AND_RENEWED: c_int = 2;
/// `OSSL_PARAM_UTF8_STRING` and `OSSL_PARAM_OCTET_STRING`
const UTF8_STRING: c_uint = 4;
const OCTET_STRING: c_uint = 5;

/// `OSSL_PARAM` (OSSL_PARAM(3)).
#[repr(C)]
struct Parameter {
    key: *const c_char,
    data_type: c_uint,
    data: *mut c_void,
    data_size: usize,
    return_size: usize,
}

/// `EVP_MAC_CTX`
#[repr(C)]
struct MacContext {
    _opaque: [u8; 0],
}

type Callback = unsafe extern "C" fn(
    *mut sys::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut sys::EVP_CIPHER_CTX,
    *mut MacContext,
    c_int,
) -> c_int;

unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(context: *mut sys::SSL_CTX, callback: Option<Callback>) -> c_int;
    fn SSL_CTX_set_timeout(context: *mut sys::SSL_CTX, seconds: c_long) -> c_long;
    fn EVP_MAC_CTX_set_params(context: *mut MacContext, parameters: *const Parameter) -> c_int;
}

/// Let `tickets` have the keys of a context's tickets. `lifetime_s`: the time that a session can be resumed.
pub fn serve(context: &mut SslContextBuilder, lifetime_s: u32) {
    // SAFETY: the context lives during the calls, and the callback for ever. The first call fails for no context alone.
    unsafe {
        SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(ticket_key));
        SSL_CTX_set_timeout(context.as_ptr(), c_long::from(lifetime_s.cast_signed()));
    }
}

/// Prepare the library to write or to read a ticket.
unsafe extern "C" fn ticket_key(
    ssl: *mut sys::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut sys::EVP_CIPHER_CTX,
    mac: *mut MacContext,
    writes: c_int,
) -> c_int {
    // SAFETY: the library gives its own live objects for the time of this call; the name has 16 octets, the IV as many
    // (EVP_MAX_IV_LENGTH).
    let (ssl, cipher, name, iv) =
        unsafe { (SslRef::from_ptr(ssl), CipherCtxRef::from_ptr_mut(cipher), &mut *name.cast(), &mut *iv.cast()) };
    let (key, status) = match writes {
        1 => match tickets::begin(ssl, name, iv, cipher) {
            Ok(Some(key)) => (key, USED),
            Ok(None) => return UNKNOWN,
            Err(_) => return FAILED,
        },
        _ => match tickets::open(ssl, name, iv, cipher) {
            Ok(Opened::Current(key)) => (key, USED),
            Ok(Opened::Earlier(key)) => (key, USED_AND_RENEWED),
            Ok(Opened::Unknown) => return UNKNOWN,
            Err(_) => return FAILED,
        },
    };
    let digest = c"SHA256";
    let parameters = [
        parameter(c"digest", UTF8_STRING, digest.as_ptr().cast(), digest.count_bytes()),
        parameter(c"key", OCTET_STRING, key.as_ptr().cast(), key.len()),
        Parameter { key: ptr::null(), data_type: 0, data: ptr::null_mut(), data_size: 0, return_size: 0 },
    ];
    // SAFETY: the library gives its own live object. It copies what the parameters point to, and an empty one ends them.
    if unsafe { EVP_MAC_CTX_set_params(mac, parameters.as_ptr()) } == 1 { status } else { FAILED }
}

fn parameter(key: &'static CStr, data_type: c_uint, data: *const c_void, data_size: usize) -> Parameter {
    Parameter { key: key.as_ptr(), data_type, data: data.cast_mut(), data_size, return_size: 0 }
}
