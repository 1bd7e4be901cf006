//! The output of `postqueue -j` and `postqueue -p`: a line or a paragraph for each message.
//!
//! JSON has Postfix's names first (`queue_name`, `queue_id`, `arrival_time`, `message_size`, `forced_expire`, `sender`,
//! `recipients` with `address`, `orig_address`, `delay_reason`, `bounce_reason`); `attempts`, `next_attempt` (seconds
//! since 1970) and `waits` follow, which Postfix does not have.
//!
//! ```text
//! -Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------
//! 8045F2AB23*     1234 Sun Nov 22 17:02:03  sender@example.org
//!                                                (why recipients wait)
//!                                          recipient@example.net
//!
//! -- 1 Kbytes in 1 Request.
//! ```
//!
//! `*` after the ID marks an active message, `!` one on hold, and `#` one that will be returned.

use crate::log::civil;
use crate::mail::status::{Outcome, Status};
use std::fmt::Write as _;

/// The name of the null sender in a listing.
pub const NULL_SENDER: &str = "MAILER-DAEMON";
/// The output for an empty queue.
pub const EMPTY: &str = "Mail queue is empty\n";
/// Maximum number of columns of an indented reason; a longer one begins at the left margin.
const REASON_COLUMNS: usize = 76;
const KBYTE: u64 = 1024;
const DAY_S: i64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 1970-01-01 was a Thursday.
const FIRST_WEEKDAY: i64 = 4;
const SHORT_HEADING: &str = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n";
const LONG_HEADING: &str = "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n";

/// Offsets of local time from UTC: the second since 1970 at which each starts, and the seconds ahead of UTC. Ascending.
pub type Offsets = Vec<(i64, i32)>;

/// The form of the output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Form {
    /// `postqueue -j`
    #[default]
    Json,
    /// `postqueue -p`
    Text {
        /// The reader's time zone.
        offsets: Offsets,
        /// Print the reason why each message waits.
        waits: bool,
    },
}

/// The facts about a message that precede its recipients.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Postfix's name of its queue.
    pub queue: &'a str,
    /// Its queue ID.
    pub name: &'a str,
    /// Seconds since 1970.
    pub arrival_s: u64,
    /// Octets of the content.
    pub size_octets: u64,
    /// The administrator wants it returned.
    pub forced_expire: bool,
    /// The reverse path, empty for the null sender.
    pub sender: &'a str,
}

/// The next attempt of a message, and its reason to wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tail<'a> {
    /// Number of attempts so far.
    pub attempts: u32,
    /// Seconds since 1970.
    pub next_attempt_s: Option<u64>,
    /// The reason: `until it is released from hold`.
    pub waits: &'a str,
}

/// Prints messages one after the other. `out` may be taken away between two messages.
#[derive(Debug)]
pub struct Rows {
    /// The output so far.
    pub out: String,
    form: Form,
    long_queue_ids: bool,
    headed: bool,
    messages: u64,
    octets: u64,
    recipients: usize,
    reason: String,
}

impl Rows {
    /// Return a printer without output. `long_queue_ids`: the columns are wide enough for long IDs.
    pub fn new(form: Form, long_queue_ids: bool) -> Self {
        Self {
            out: String::new(),
            form,
            long_queue_ids,
            headed: false,
            messages: 0,
            octets: 0,
            recipients: 0,
            reason: String::new(),
        }
    }

    /// Return a printer for rows that follow these, for another thread: see `append`.
    pub fn continuation(&self) -> Self {
        Self { headed: true, ..Self::new(self.form.clone(), self.long_queue_ids) }
    }

    /// Append rows to these, and add up their counts.
    pub fn append(&mut self, rows: &Self) {
        if rows.messages > 0 {
            self.put_heading();
        }
        self.out.push_str(&rows.out);
        self.messages += rows.messages;
        self.octets += rows.octets;
    }

    fn put_heading(&mut self) {
        if !std::mem::replace(&mut self.headed, true) && self.form != Form::Json {
            self.out.push_str(if self.long_queue_ids { LONG_HEADING } else { SHORT_HEADING });
        }
    }

    /// Return the number of messages so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Begin a message.
    pub fn begin(&mut self, head: &Head<'_>) {
        let sender = if head.sender.is_empty() { NULL_SENDER } else { head.sender };
        self.messages += 1;
        self.octets += head.size_octets;
        self.recipients = 0;
        self.reason.clear();
        self.put_heading();
        match &self.form {
            Form::Json => {
                self.out.push_str("{\"queue_name\": ");
                json_string(&mut self.out, head.queue);
                self.out.push_str(", \"queue_id\": ");
                json_string(&mut self.out, head.name);
                self.out.push_str(", \"arrival_time\": ");
                number(&mut self.out, head.arrival_s);
                self.out.push_str(", \"message_size\": ");
                number(&mut self.out, head.size_octets);
                self.out.push_str(", \"forced_expire\": ");
                self.out.push_str(if head.forced_expire { "true" } else { "false" });
                self.out.push_str(", \"sender\": ");
                json_string(&mut self.out, sender);
                self.out.push_str(", \"recipients\": [");
            }
            Form::Text { offsets, .. } => {
                let mut name = String::from(head.name);
                match head.queue {
                    "active" => name.push('*'),
                    "hold" => name.push('!'),
                    _ => {}
                }
                if head.forced_expire {
                    name.push('#');
                }
                let (wide, size, time) = if self.long_queue_ids { (17, 8, 19) } else { (11, 7, 20) };
                let _ = write!(self.out, "{name:<wide$} {:>size$} ", head.size_octets);
                let moment = ctime(head.arrival_s, offsets);
                self.out.push_str(&moment[..time.min(moment.len())]);
                self.out.push(' ');
                printable(&mut self.out, sender);
                self.out.push('\n');
            }
        }
    }

    /// Print a recipient that is not done, and the result of its last attempt.
    pub fn recipient(&mut self, address: &str, original: Option<&str>, status: Option<&Status>) {
        self.recipients += 1;
        match self.form {
            Form::Json => {
                if self.recipients > 1 {
                    self.out.push_str(", ");
                }
                self.out.push_str("{\"address\": ");
                json_string(&mut self.out, address);
                if let Some(original) = original.filter(|original| *original != address) {
                    self.out.push_str(", \"orig_address\": ");
                    json_string(&mut self.out, original);
                }
                if let Some(status) = status {
                    self.out.push_str(match status.outcome {
                        Outcome::Bounced => ", \"bounce_reason\": ",
                        _ => ", \"delay_reason\": ",
                    });
                    json_string(&mut self.out, &status.text);
                }
                self.out.push('}');
            }
            Form::Text { .. } => {
                let reason = status.map_or("", |status| &*status.text);
                if !reason.is_empty() && reason != self.reason {
                    self.reason.clear();
                    self.reason.push_str(reason);
                    let wide = REASON_COLUMNS.saturating_sub(reason.chars().count());
                    let _ = write!(self.out, "{:wide$}(", "");
                    printable(&mut self.out, reason);
                    self.out.push_str(")\n");
                }
                let margin = if self.long_queue_ids { 47 } else { 41 };
                let _ = write!(self.out, "{:margin$}", "");
                printable(&mut self.out, address);
                self.out.push('\n');
            }
        }
    }

    /// End the message.
    pub fn end(&mut self, tail: &Tail<'_>) {
        match &self.form {
            Form::Json => {
                self.out.push_str("], \"attempts\": ");
                number(&mut self.out, tail.attempts.into());
                if let Some(next_attempt_s) = tail.next_attempt_s {
                    self.out.push_str(", \"next_attempt\": ");
                    number(&mut self.out, next_attempt_s);
                }
                if !tail.waits.is_empty() {
                    self.out.push_str(", \"waits\": ");
                    json_string(&mut self.out, tail.waits);
                }
                self.out.push_str("}\n");
            }
            Form::Text { offsets, waits } => {
                if *waits && !tail.waits.is_empty() {
                    self.out.push_str("    waits ");
                    printable(&mut self.out, tail.waits);
                    if let Some(next_attempt_s) = tail.next_attempt_s {
                        let _ = write!(self.out, ": {}", ctime(next_attempt_s, offsets));
                    }
                    let plural = if tail.attempts == 1 { "" } else { "s" };
                    let _ = writeln!(self.out, " ({} attempt{plural} so far)", tail.attempts);
                }
                self.out.push('\n');
            }
        }
    }

    /// End the output after the last message.
    pub fn finish(&mut self) {
        if self.form == Form::Json {
            return;
        }
        if self.messages == 0 {
            self.out.push_str(EMPTY);
            return;
        }
        let plural = if self.messages == 1 { "" } else { "s" };
        let _ = writeln!(self.out, "-- {} Kbytes in {} Request{plural}.", self.octets / KBYTE, self.messages);
    }
}

/// Append a number.
fn number(out: &mut String, value: u64) {
    let _ = write!(out, "{value}");
}

/// Append a JSON string (RFC 8259 §7).
fn json_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().all(|octet| (0x20..0x7f).contains(&octet) && octet != b'"' && octet != b'\\') {
        out.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
    }
    out.push('"');
}

/// Append a text without characters that move the cursor, colour the terminal or change the text direction.
fn printable(out: &mut String, text: &str) {
    let moves = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    out.extend(text.chars().map(|c| if moves(c) { '?' } else { c }));
}

/// Return `Sun Nov 22 17:02:03 2026`, in the reader's time zone (ctime(3)).
fn ctime(at_s: u64, offsets: &Offsets) -> String {
    let at_s = i64::try_from(at_s).unwrap_or(0);
    let passed = offsets.partition_point(|(from_s, _)| *from_s <= at_s);
    let offset_s = offsets.get(passed.saturating_sub(1)).map_or(0, |(_, offset_s)| i64::from(*offset_s));
    let local = at_s.saturating_add(offset_s);
    let (days, second) = (local.div_euclid(DAY_S), local.rem_euclid(DAY_S));
    let (year, month, day) = civil(days);
    let weekday = WEEKDAYS[(days + FIRST_WEEKDAY).rem_euclid(7) as usize];
    let month = MONTHS[month as usize - 1];
    format!("{weekday} {month} {day:>2} {:02}:{:02}:{:02} {year}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::reply::Enhanced;

    fn deferred(text: &str) -> Status {
        let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
        Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None }
    }

    fn head(name: &'static str, queue: &'static str) -> Head<'static> {
        Head { queue, name, arrival_s: 0, size_octets: 253, forced_expire: false, sender: "" }
    }

    #[test]
    fn rows_of_two_threads_read_like_rows_of_one() {
        for form in [Form::Json, Form::Text { offsets: vec![], waits: false }] {
            let print = |rows: &mut Rows, name| {
                rows.begin(&head(name, "deferred"));
                rows.recipient("a@example.net", None, None);
                rows.end(&Tail::default());
            };
            let mut one = Rows::new(form.clone(), false);
            let mut two = one.continuation();
            assert_eq!((one.append(&two), &*one.out), ((), ""), "nothing has no heading");
            let mut alone = Rows::new(form, false);
            for name in ["A1", "A2", "A3"] {
                print(&mut alone, name);
            }
            print(&mut two, "A1");
            one.append(&two);
            two = one.continuation();
            print(&mut one, "A2");
            print(&mut two, "A3");
            one.append(&two);
            for rows in [&mut one, &mut alone] {
                rows.finish();
            }
            assert_eq!((one.messages(), one.out), (alone.messages(), alone.out));
        }
    }

    #[test]
    fn the_text_has_the_columns_of_postfix() {
        let mut rows = Rows::new(Form::Text { offsets: vec![], waits: false }, false);
        let long = deferred(&"x".repeat(80));
        let reason = deferred("deferred transport");
        rows.begin(&head("C25E99981A3", "deferred"));
        rows.recipient("a@example.net", None, Some(&reason));
        rows.recipient("b@example.net", None, Some(&reason));
        rows.end(&Tail::default());
        rows.begin(&Head { sender: "s@example.org", size_octets: 1024, ..head("BE6E49981A1", "hold") });
        rows.end(&Tail::default());
        rows.begin(&head("C25E99981A3", "active"));
        rows.recipient("a", None, None);
        rows.recipient("b\x1b[31m\u{202e}", None, Some(&long));
        rows.end(&Tail::default());
        rows.begin(&Head { forced_expire: true, ..head("C25E99981A3", "hold") });
        rows.end(&Tail::default());
        rows.finish();
        let expected = format!(
            "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------
C25E99981A3     253 Thu Jan  1 00:00:00  MAILER-DAEMON
                                                          (deferred transport)
                                         a@example.net
                                         b@example.net

BE6E49981A1!    1024 Thu Jan  1 00:00:00  s@example.org

C25E99981A3*     253 Thu Jan  1 00:00:00  MAILER-DAEMON
                                         a
({})
                                         b?[31m?

C25E99981A3!#     253 Thu Jan  1 00:00:00  MAILER-DAEMON

-- 1 Kbytes in 4 Requests.
",
            long.text
        );
        assert_eq!(rows.out, expected);
    }

    #[test]
    fn local_time_follows_the_readers_time_zone() {
        let offsets = vec![(0, 3600), (1_795_000_000, 7200), (1_795_000_100, -3600)];
        for (at_s, text) in [
            (0, "Thu Jan  1 01:00:00 1970"),
            (1_794_999_999, "Wed Nov 18 12:06:39 2026"),
            (1_795_000_000, "Wed Nov 18 13:06:40 2026"),
            (1_795_000_100, "Wed Nov 18 10:08:20 2026"),
        ] {
            assert_eq!(ctime(at_s, &offsets), text);
        }
        assert_eq!(ctime(u64::MAX, &vec![]), "Thu Jan  1 00:00:00 1970");
    }

    #[test]
    fn the_reason_to_wait_is_printed_on_request() {
        let tail = Tail { attempts: 2, next_attempt_s: Some(60), waits: "for its next attempt" };
        let mut rows = Rows::new(Form::Text { offsets: vec![], waits: true }, true);
        rows.begin(&head("4b3XYz1abcz0", "deferred"));
        rows.recipient("a@example.net", None, None);
        rows.end(&tail);
        let shown = "4b3XYz1abcz0           253 Thu Jan  1 00:00:00 MAILER-DAEMON
                                               a@example.net
    waits for its next attempt: Thu Jan  1 00:01:00 1970 (2 attempts so far)
";
        assert!(rows.out.contains(shown), "{}", rows.out);
        let mut rows = Rows::new(Form::Json, false);
        rows.begin(&head("C25E99981A3", "deferred"));
        rows.recipient("a", Some("b"), Some(&Status { outcome: Outcome::Bounced, ..deferred("no") }));
        rows.end(&tail);
        rows.finish();
        assert_eq!(
            rows.out,
            r#"{"queue_name": "deferred", "queue_id": "C25E99981A3", "arrival_time": 0, "message_size": 253, "forced_expire": false, "sender": "MAILER-DAEMON", "recipients": [{"address": "a", "orig_address": "b", "bounce_reason": "no"}], "attempts": 2, "next_attempt": 60, "waits": "for its next attempt"}
"#
        );
    }

    #[test]
    fn an_empty_queue_says_so() {
        let mut rows = Rows::new(Form::Text { offsets: vec![], waits: true }, true);
        rows.finish();
        assert_eq!(rows.out, EMPTY);
    }

    #[test]
    fn hostile_texts_stay_inside_their_string() {
        let mut out = String::new();
        json_string(&mut out, "a\"b\\c\r\n\u{1}\u{9b}ü");
        assert_eq!(out, r#""a\"b\\c\r\n\u0001\u009bü""#);
    }
}
