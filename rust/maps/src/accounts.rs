//! `unix:passwd.byname` and `unix:group.byname`: the system's accounts, by its name service (passwd(5), group(5)).

use postillion_core::ask::Answer;
use postillion_core::table::Table;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Octets of an account's texts, at first and at most: a group may have many members.
const BUFFER_OCTETS: (usize, usize) = (1024, 16 * 1024 * 1024);
/// Maximum number of calls for one lookup: with larger buffers, and after signals.
const CALLS_MAX: usize = 20;

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

    /// Return the line of an account in passwd(5) or group(5). Errors: the name service failed.
    pub fn line(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let key = key.to_ascii_lowercase();
        match self.users {
            true => Ok(user(&key)?.map(User::line)),
            false => group(&key),
        }
    }
}

impl Table for Accounts {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        match self.line(key) {
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

/// A user of the system (passwd(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: Vec<u8>,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// The home directory.
    pub home: Vec<u8>,
    /// The shell.
    pub shell: Vec<u8>,
    password: Vec<u8>,
    gecos: Vec<u8>,
}

/// Return the user with this name. Errors: the name service failed, so nobody knows whether there is one.
pub fn user(name: &[u8]) -> io::Result<Option<User>> {
    let Some(name) = text(name) else { return Ok(None) };
    user_by(|entry, buffer, found| {
        // SAFETY: `name` ends with a null octet; the others are valid, see `user_by`.
        unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// Return the user with this number. Errors: as for `user`.
pub fn user_of(uid: u32) -> io::Result<Option<User>> {
    user_by(|entry, buffer, found| {
        // SAFETY: all are valid, see `user_by`.
        unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// Return a name as a C text, unless it is empty or has a null octet: no account has such a name.
fn text(name: &[u8]) -> Option<CString> {
    CString::new(name).ok().filter(|name| !name.is_empty())
}

/// Call `find` again after a signal, and with a larger buffer until it is large enough. `find`: the result of a call of
/// the name service, 0 and whether there is an entry.
///
/// Every error is one, also ENOENT: glibc returns it for a source that does not answer, and 0 for a missing entry.
fn with_buffer<T>(mut find: impl FnMut(&mut [c_char]) -> (i32, Option<T>)) -> io::Result<Option<T>> {
    let mut octets = BUFFER_OCTETS.0;
    let mut error = libc::EINTR;
    for _ in 0..CALLS_MAX {
        let found;
        (error, found) = find(&mut vec![0; octets]);
        match error {
            0 => return Ok(found),
            libc::EINTR => {}
            libc::ERANGE if octets < BUFFER_OCTETS.1 => octets *= 4,
            _ => break,
        }
    }
    Err(io::Error::from_raw_os_error(error))
}

/// Return the user that `call` finds. It gets an entry to fill, a buffer for its texts, and where to say that there is
/// one; all are valid during the call.
fn user_by(
    mut call: impl FnMut(*mut libc::passwd, &mut [c_char], *mut *mut libc::passwd) -> i32,
) -> io::Result<Option<User>> {
    with_buffer(|buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        let error = call(entry.as_mut_ptr(), buffer, &mut found);
        if error != 0 || found.is_null() {
            return (error, None);
        }
        // SAFETY: the call succeeded and found an entry, so it is filled and its texts are in `buffer`.
        let user = unsafe {
            let entry = entry.assume_init();
            User {
                name: octets(entry.pw_name),
                uid: entry.pw_uid,
                gid: entry.pw_gid,
                home: octets(entry.pw_dir),
                shell: octets(entry.pw_shell),
                password: octets(entry.pw_passwd),
                gecos: octets(entry.pw_gecos),
            }
        };
        (0, Some(user))
    })
}

impl User {
    /// Return the line of passwd(5).
    fn line(self) -> Vec<u8> {
        let numbers = format!("{}:{}", self.uid, self.gid).into_bytes();
        [self.name, self.password, numbers, self.gecos, self.home, self.shell].join(&b':')
    }
}

/// Return the line of group(5) of the group with this name.
fn group(name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(name) = text(name) else { return Ok(None) };
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

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = user(b"root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, &root.name[..]), (0, 0, &b"root"[..]));
        assert_eq!(user_of(0).unwrap(), Some(root));
        assert_eq!(user(b"Root").unwrap(), None);
        assert_eq!(user_of(u32::MAX - 7).unwrap(), None);
    }

    #[test]
    fn every_error_of_the_name_service_is_a_failure() {
        for error in [libc::EIO, libc::ENOENT, libc::ESRCH, libc::EPERM, libc::EINTR, libc::ERANGE] {
            let mut calls = 0;
            let answer = with_buffer(|_| {
                calls += 1;
                (error, None::<()>)
            });
            assert_eq!(answer.unwrap_err().raw_os_error(), Some(error));
            assert!(calls <= CALLS_MAX);
        }
        let mut errors = [libc::EINTR, libc::ERANGE, libc::ERANGE, 0].into_iter();
        let mut octets = 0;
        let found = with_buffer(|buffer| {
            octets = buffer.len();
            (errors.next().unwrap(), Some(7))
        });
        assert_eq!((found.unwrap(), octets), (Some(7), BUFFER_OCTETS.0 * 16));
    }
}
