//! `unix:passwd.byname` and `unix:group.byname`: the system's accounts, by its name service (passwd(5), group(5)).

use postillion_core::ask::Answer;
use postillion_core::table::Table;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Octets of an account's texts, at first and at most: a group may have many members.
const BUFFER_OCTETS: (usize, usize) = (1024, 16 * 1024 * 1024);

/// Users or groups by name.
#[derive(Debug)]
pub struct Accounts {
    name: Box<str>,
    users: bool,
}

impl Accounts {
    /// `rest`: passwd.byname or group.byname. Errors: another name.
    pub fn new(name: &str, rest: &[u8]) -> Result<Self, String> {
        let users = match rest {
            b"passwd.byname" => true,
            b"group.byname" => false,
            _ => return Err(format!("unknown table: {name}; known are unix:passwd.byname and unix:group.byname")),
        };
        Ok(Self { name: name.into(), users })
    }
}

impl Table for Accounts {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        let Ok(key) = CString::new(key.to_ascii_lowercase()) else { return Answer::NotFound };
        if key.is_empty() {
            return Answer::NotFound;
        }
        match if self.users { user(&key) } else { group(&key) } {
            Ok(Some(line)) => Answer::Found(line.into()),
            Ok(None) => Answer::NotFound,
            Err(error) => Answer::Failed(format!("table {}: {error}", self.name).into()),
        }
    }

    fn owner(&self) -> Option<u32> {
        Some(0)
    }

    fn has_addresses(&self) -> bool {
        false
    }
}

/// Call `find` with a larger buffer until it is large enough. `find`: the result of a call of the name service, 0 and
/// whether there is an entry.
fn with_buffer<T>(mut find: impl FnMut(&mut [c_char]) -> (i32, Option<T>)) -> io::Result<Option<T>> {
    let mut octets = BUFFER_OCTETS.0;
    loop {
        let (error, found) = find(&mut vec![0; octets]);
        match error {
            0 => return Ok(found),
            libc::EINTR => {}
            libc::ERANGE if octets < BUFFER_OCTETS.1 => octets *= 4,
            // Some name services return these for a missing entry (getpwnam(3)).
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            _ => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn user(name: &CStr) -> io::Result<Option<Vec<u8>>> {
    with_buffer(|buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: all pointers are to local memory of the lengths that are given.
        let error = unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found)
        };
        if error != 0 || found.is_null() {
            return (error, None);
        }
        // SAFETY: the call succeeded and found an entry, so it is filled and its texts are in `buffer`.
        let line = unsafe {
            let entry = entry.assume_init();
            let numbers = format!("{}:{}", entry.pw_uid, entry.pw_gid).into_bytes();
            let texts = [entry.pw_gecos, entry.pw_dir, entry.pw_shell].map(|text| octets(text));
            [octets(entry.pw_name), octets(entry.pw_passwd), numbers].into_iter().chain(texts).collect::<Vec<_>>()
        };
        (0, Some(line.join(&b':')))
    })
}

fn group(name: &CStr) -> io::Result<Option<Vec<u8>>> {
    with_buffer(|buffer| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: all pointers are to local memory of the lengths that are given.
        let error = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found)
        };
        if error != 0 || found.is_null() {
            return (error, None);
        }
        // SAFETY: the call succeeded and found an entry, so it is filled, its texts are in `buffer`, and its list of
        // members ends with a null pointer.
        let line = unsafe {
            let entry = entry.assume_init();
            let mut members = Vec::new();
            let mut member = entry.gr_mem;
            while !(*member).is_null() {
                members.push(octets(*member));
                member = member.add(1);
            }
            let number = entry.gr_gid.to_string().into_bytes();
            [octets(entry.gr_name), octets(entry.gr_passwd), number, members.join(&b',')]
        };
        (0, Some(line.join(&b':')))
    })
}

/// Return the octets of a C text, none for a null pointer.
///
/// # Safety
///
/// `text` is null, or points to octets that end with a null octet.
unsafe fn octets(text: *const c_char) -> Vec<u8> {
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_a_user_and_a_group() {
        let users = Accounts::new("unix:passwd.byname", b"passwd.byname").unwrap();
        let Answer::Found(line) = users.lookup(b"ROOT") else { panic!("no root") };
        assert!(line.starts_with(b"root:") && line.iter().filter(|&&octet| octet == b':').count() == 6);
        let groups = Accounts::new("unix:group.byname", b"group.byname").unwrap();
        assert!(matches!(groups.lookup(b"root"), Answer::Found(line) if line.starts_with(b"root:")));
        for key in ["", "a\0b", "no such user", "\u{fffd}"] {
            assert_eq!(users.lookup(key.as_bytes()), Answer::NotFound);
            assert_eq!(groups.lookup(key.as_bytes()), Answer::NotFound);
        }
        assert!(Accounts::new("unix:shadow", b"shadow").is_err());
    }
}
