//! Passes on the version of OpenSSL's headers, for `version::COMPILED`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let number = std::env::var("DEP_OPENSSL_VERSION_NUMBER").expect("openssl-sys gives the version");
    let number = u64::from_str_radix(&number, 16).expect("the version is hexadecimal");
    // 0xMNN00PP0: major, minor, patch (OPENSSL_VERSION_NUMBER(3)).
    let (major, minor, patch) = (number >> 28, number >> 20 & 0xff, number >> 4 & 0xff);
    println!("cargo:rustc-env=POSTILLION_OPENSSL_VERSION=OpenSSL {major}.{minor}.{patch}");
}
