//! Calls of OpenSSL that the `openssl` crate does not have. Each one takes objects of the crate, which are alive during the
//! call, and keeps no reference.

pub mod client;
pub mod tickets;

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl::x509::X509Ref;
use openssl_sys as sys;
use std::ffi::{c_int, c_long, c_void};
use std::ptr;

/// `SSL_CTRL_CHAIN_CERT`
const CHAIN_CERT: c_int = 89;
/// `SSL_CTRL_GET_PEER_SIGNATURE_NID`
const PEER_SIGNATURE_NID: c_int = 108;
/// `SSL_CTRL_GET_SIGNATURE_NID`
const SIGNATURE_NID: c_int = 132;

unsafe extern "C" {
    fn SSL_get_signature_type_nid(ssl: *const sys::SSL, nid: *mut c_int) -> c_int;
    fn SSL_get_peer_signature_type_nid(ssl: *const sys::SSL, nid: *mut c_int) -> c_int;
}

/// The side of a connection that has signed the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// This side.
    Own,
    /// The other side.
    Peer,
}

/// Add a certificate to the chain of the certificate that was set last.
pub fn add_chain_certificate(context: &mut SslContextBuilder, certificate: &X509Ref) -> Result<(), ErrorStack> {
    // SAFETY: both objects live during the call. With 1 as the third argument, OpenSSL takes a reference of its own.
    let added = unsafe { sys::SSL_CTX_ctrl(context.as_ptr(), CHAIN_CERT, 1, certificate.as_ptr().cast::<c_void>()) };
    if added == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Let OpenSSL choose Diffie-Hellman parameters that fit the certificate's key.
pub fn choose_dh_parameters(context: &mut SslContextBuilder) {
    // SAFETY: the context lives during the call, which sets a flag in it.
    unsafe { sys::SSL_CTX_set_dh_auto(context.as_ptr(), 1) };
}

/// Return the type of a signature: `rsassaPss`, `id-ecPublicKey` ...
pub fn signature_type(ssl: &SslRef, signer: Signer) -> Option<Nid> {
    let mut nid = 0;
    // SAFETY: the connection lives during the call, which writes a number.
    let found = unsafe {
        match signer {
            Signer::Own => SSL_get_signature_type_nid(ssl.as_ptr(), &raw mut nid),
            Signer::Peer => SSL_get_peer_signature_type_nid(ssl.as_ptr(), &raw mut nid),
        }
    };
    (found == 1 && nid != 0).then(|| Nid::from_raw(nid))
}

/// Return the digest of a signature; `None` for a signature without one, such as Ed25519.
pub fn signature_digest(ssl: &SslRef, signer: Signer) -> Option<Nid> {
    let mut nid: c_int = 0;
    let command = match signer {
        Signer::Own => SIGNATURE_NID,
        Signer::Peer => PEER_SIGNATURE_NID,
    };
    // SAFETY: the connection lives during the call, which writes a number.
    let found: c_long = unsafe { sys::SSL_ctrl(ssl.as_ptr(), command, 0, ptr::from_mut(&mut nid).cast::<c_void>()) };
    (found == 1 && nid != 0).then(|| Nid::from_raw(nid))
}
