//! Log lines, formatted here and written in batches by a thread.
//!
//! A caller pays for formatting and a copy. The writing thread wakes up at a line, waits one `BATCH_WINDOW` for more,
//! and writes them with one system call, or one datagram a line for syslog. The line format is syslog's (`Nov 22
//! 17:02:03 host postfix/smtpd[123]: text`), as in Postfix's `maillog_file`.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest time the first line of a batch waits for more lines.
pub const BATCH_WINDOW: Duration = Duration::from_millis(10);
/// Maximum octets of a line; the rest is cut, so that a hostile text cannot fill a log.
pub const LINE_MAX_OCTETS: usize = 2000;
/// Maximum octets that wait to be written; further lines are dropped and counted.
pub const BACKLOG_MAX_OCTETS: usize = 16 * 1024 * 1024;

/// The severity of a line. Postfix prefixes the text of all but `Info` with the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// An event.
    Info,
    /// A problem to check.
    Warning,
    /// A part failed.
    Error,
    /// The program cannot go on.
    Fatal,
    /// A bug in the program.
    Panic,
}

impl Severity {
    fn prefix(self) -> &'static str {
        match self {
            Self::Info => "",
            Self::Warning => "warning: ",
            Self::Error => "error: ",
            Self::Fatal => "fatal: ",
            Self::Panic => "panic: ",
        }
    }

    /// Return the severity of syslog (RFC 3164 §4.1.1).
    fn syslog(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Warning => 4,
            Self::Error => 3,
            Self::Fatal | Self::Panic => 2,
        }
    }
}

/// The destination of lines.
#[derive(Debug)]
pub enum LogTarget {
    /// A file opened for appending, or standard output.
    File(File),
    /// A socket, the path of syslogd's, and the facility number (mail is 2). Lines go to the path, not to a connection,
    /// so that a restarted syslogd receives them, too.
    Syslog(UnixDatagram, PathBuf, u8),
    /// Memory, for tests: `Log::take_lines`.
    Memory,
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    lost_lines: u64,
    utc_offset_s: i32,
    /// The start of all lines in one second of local time.
    stamp: (i64, Vec<u8>),
    ending: bool,
    writing: bool,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

/// A program's log. Share it as `Arc<Log>`.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    /// ` host syslog_name/`, the text between the time and the program.
    origin: String,
    program: String,
    /// `[pid]: `
    pid_mark: String,
    facility: Option<u8>,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    /// Return a log whose lines have `syslog_name/program[pid]`. `utc_offset_s`: seconds that local time is ahead of
    /// UTC; set it again with `set_utc_offset` when daylight saving begins or ends.
    pub fn new(
        host: &str,
        syslog_name: &str,
        program: &str,
        pid: u32,
        utc_offset_s: i32,
        destination: LogTarget,
    ) -> Self {
        let pending = Pending {
            bytes: Vec::new(),
            lost_lines: 0,
            utc_offset_s,
            stamp: (i64::MIN, Vec::new()),
            ending: false,
            writing: false,
        };
        let shared = Arc::new(Shared { pending: Mutex::new(pending), changed: Condvar::new() });
        let facility = if let LogTarget::Syslog(_, _, facility) = destination { Some(facility) } else { None };
        let writer = match destination {
            LogTarget::Memory => None,
            destination => {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name("log".into());
                Some(thread.spawn(move || write_batches(&shared, destination)).expect("a thread can be started"))
            }
        };
        // syslogd itself adds the host to lines from its socket.
        let origin = match facility {
            Some(_) => format!(" {syslog_name}/"),
            None => format!(" {host} {syslog_name}/"),
        };
        Self { shared, origin, program: program.into(), pid_mark: format!("[{pid}]: "), facility, writer }
    }

    /// Add an `Info` line.
    pub fn info(&self, text: fmt::Arguments<'_>) {
        self.line(Severity::Info, text);
    }

    /// Add a `Warning` line.
    pub fn warning(&self, text: fmt::Arguments<'_>) {
        self.line(Severity::Warning, text);
    }

    /// Add a line. Unprintable characters become `?`, so that one event is one line with any text from a peer.
    pub fn line(&self, severity: Severity, text: fmt::Arguments<'_>) {
        self.line_as(&self.program, severity, text);
    }

    /// Add a line for another program in this process, for example cleanup in smtpd. Log parsers depend on its name.
    pub fn line_as(&self, program: &str, severity: Severity, text: fmt::Arguments<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut pending = lock(&self.shared.pending);
        if pending.bytes.len() > BACKLOG_MAX_OCTETS {
            pending.lost_lines += 1;
            return;
        }
        let was_empty = pending.bytes.is_empty();
        let mut line = Line { bytes: std::mem::take(&mut pending.bytes), start: 0 };
        if let Some(facility) = self.facility {
            let _ = write!(line, "<{}>", facility * 8 + severity.syslog());
        }
        let local_s = now as i64 + i64::from(pending.utc_offset_s);
        if pending.stamp.0 != local_s {
            pending.stamp = (local_s, stamp(local_s).into_bytes());
        }
        line.bytes.extend_from_slice(&pending.stamp.1);
        for part in [&self.origin, program, &self.pid_mark, severity.prefix()] {
            line.bytes.extend_from_slice(part.as_bytes());
        }
        line.start = line.bytes.len();
        let _ = line.write_fmt(text);
        line.bytes.push(b'\n');
        pending.bytes = line.bytes;
        drop(pending);
        if was_empty {
            self.shared.changed.notify_all();
        }
    }

    /// Set how far local time is ahead of UTC.
    pub fn set_utc_offset(&self, utc_offset_s: i32) {
        lock(&self.shared.pending).utc_offset_s = utc_offset_s;
    }

    /// Wait until all lines so far are written.
    pub fn flush(&self) {
        if self.writer.is_none() {
            return;
        }
        let mut pending = lock(&self.shared.pending);
        while !pending.bytes.is_empty() || pending.writing {
            pending = self.shared.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Return the lines of a `LogTarget::Memory` log, without stamp, host and tag.
    pub fn take_lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut lock(&self.shared.pending).bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.lines().map(|line| line.split_once(&self.pid_mark).map_or(line, |(_, rest)| rest).to_owned()).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        lock(&self.shared.pending).ending = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Lock the state, poisoned or not. A panic under the lock leaves at worst a truncated line: go on logging.
fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_batches(shared: &Shared, mut destination: LogTarget) {
    loop {
        let mut pending = lock(&shared.pending);
        while pending.bytes.is_empty() && !pending.ending {
            pending = shared.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        if pending.bytes.is_empty() {
            return;
        }
        if !pending.ending {
            let window = shared.changed.wait_timeout_while(pending, BATCH_WINDOW, |pending| !pending.ending);
            pending = window.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut batch = std::mem::take(&mut pending.bytes);
        let lost = std::mem::take(&mut pending.lost_lines);
        pending.writing = true;
        drop(pending);
        if lost > 0 {
            batch.extend_from_slice(format!("warning: {lost} log lines were lost: the log is too slow\n").as_bytes());
        }
        write_batch(&mut destination, &batch);
        lock(&shared.pending).writing = false;
        shared.changed.notify_all();
    }
}

/// Write a batch. No place is left to report a failed write of the log; mail goes on without it.
fn write_batch(destination: &mut LogTarget, batch: &[u8]) {
    match destination {
        LogTarget::File(file) => {
            let _ = file.write_all(batch);
        }
        LogTarget::Syslog(socket, path, _) => {
            for line in batch.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let _ = socket.send_to(line, &path);
            }
        }
        LogTarget::Memory => {}
    }
}

/// A line under construction: printable characters only, up to the limit.
struct Line {
    bytes: Vec<u8>,
    start: usize,
}

/// Return `Nov 22 17:02:03`; `local_s`: seconds since 1970 in local time.
fn stamp(local_s: i64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, month, day) = civil(local_s.div_euclid(86_400));
    let second = local_s.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{} {day:2} {hour:02}:{minute:02}:{second:02}", MONTHS[month as usize - 1])
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_MAX_OCTETS.saturating_sub(self.bytes.len() - self.start);
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        // Without an early exit the compiler checks many octets at once.
        if text.bytes().fold(true, |all, octet| all & (b' '..0x7f).contains(&octet)) {
            self.bytes.extend_from_slice(text.as_bytes());
        } else {
            let printable = text.chars().map(|c| if c.is_control() || is_bidi_control(c) { '?' } else { c });
            self.bytes.extend(printable.collect::<String>().into_bytes());
        }
        Ok(())
    }
}

/// Whether a character changes the text direction: a line with it could show forged text.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Return year, month (1..=12) and day (1..=31) of a day counted from 1970-01-01, in the Gregorian calendar.
pub fn civil(days: i64) -> (i64, u32, u32) {
    // Count years from March, so that the leap day is the last day of a year, in eras of 400 years (146,097 days).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_779, (2026, 11, 22)),
            (24_855, (2038, 1, 19)),
        ] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn a_line_stays_one_printable_line() {
        let log = Log::new("mx", "postfix", "smtpd", 7, 0, LogTarget::Memory);
        log.info(format_args!("helo=<{}>", "a\r\nb\u{1b}[2J\u{202e}ü"));
        log.warning(format_args!("{}", "x".repeat(3000)));
        let lines = log.take_lines();
        assert_eq!(lines[0], "helo=<a??b?[2J?ü>");
        assert_eq!(lines[1].len(), LINE_MAX_OCTETS + "warning: ".len());
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn syslog_gets_a_datagram_for_each_line_also_after_a_restart() {
        let path = std::env::temp_dir().join(format!("postillion-syslog-{}", std::process::id()));
        let log = {
            let socket = UnixDatagram::unbound().unwrap();
            Log::new("mx", "postfix", "smtpd", 7, 0, LogTarget::Syslog(socket, path.clone(), 2))
        };
        for _ in 0..2 {
            let syslogd = UnixDatagram::bind(&path).unwrap();
            log.info(format_args!("connect"));
            log.warning(format_args!("slow"));
            for (priority, text) in
                [("<22>", " postfix/smtpd[7]: connect"), ("<20>", " postfix/smtpd[7]: warning: slow")]
            {
                let mut datagram = [0; 200];
                let octets = syslogd.recv(&mut datagram).unwrap();
                let line = std::str::from_utf8(&datagram[..octets]).unwrap();
                assert!(line.starts_with(priority) && line.ends_with(text), "{line}");
            }
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn every_line_is_written_before_the_log_ends() {
        let path = std::env::temp_dir().join(format!("postillion-log-{}", std::process::id()));
        let log = Log::new("mx", "postfix", "qmgr", 7, 3600, LogTarget::File(File::create(&path).unwrap()));
        for n in 0..1000 {
            log.info(format_args!("line {n}"));
        }
        log.flush();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written.lines().count(), 1000);
        assert!(written.lines().next().unwrap().ends_with(" mx postfix/qmgr[7]: line 0"));
        log.info(format_args!("last"));
        drop(log);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(": last\n"));
        std::fs::remove_file(path).unwrap();
    }
}
