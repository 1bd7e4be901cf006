//! Dates in mail headers (RFC 5322 §3.3), in Postfix's form.

use crate::log::civil;

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_S: i64 = 86_400;
const USEC: u64 = 1_000_000;
/// 1970-01-01 was a Thursday.
const FIRST_WEEKDAY: i64 = 4;

/// The offset of local time from UTC, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Seconds ahead of UTC.
    pub utc_offset_s: i32,
    /// `UTC`, `CET`...; empty without a name.
    pub name: Box<str>,
}

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl Zone {
    /// Return coordinated universal time.
    pub fn utc() -> Self {
        Self { utc_offset_s: 0, name: "UTC".into() }
    }

    /// Return `Sun, 22 Nov 2026 17:02:03 +0000 (UTC)`. `wall_us`: microseconds since 1970.
    pub fn date(&self, wall_us: u64) -> String {
        let local = (wall_us / USEC) as i64 + i64::from(self.utc_offset_s);
        let (days, second) = (local.div_euclid(DAY_S), local.rem_euclid(DAY_S));
        let (year, month, day) = civil(days);
        let weekday = WEEKDAYS[(days + FIRST_WEEKDAY).rem_euclid(7) as usize];
        let month = MONTHS[month as usize - 1];
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let sign = if self.utc_offset_s < 0 { '-' } else { '+' };
        let ahead_min = self.utc_offset_s.unsigned_abs() / 60;
        let (ahead_h, ahead_min) = (ahead_min / 60, ahead_min % 60);
        let mut text = format!(
            "{weekday}, {day} {month} {year} {hour:02}:{minute:02}:{second:02} {sign}{ahead_h:02}{ahead_min:02}"
        );
        if !self.name.is_empty() {
            text.push_str(&format!(" ({})", self.name));
        }
        text
    }
}

/// Return `20261122170203`, in UTC: the time in a Message-Id.
pub fn compact_utc(wall_us: u64) -> String {
    let seconds = (wall_us / USEC) as i64;
    let (year, month, day) = civil(seconds.div_euclid(DAY_S));
    let second = seconds.rem_euclid(DAY_S);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL_US: u64 = 1_795_366_923_000_000;

    #[test]
    fn dates_are_in_local_time_with_its_offset_and_name() {
        for (utc_offset_s, name, date) in [
            (0, "UTC", "Sun, 22 Nov 2026 17:02:03 +0000 (UTC)"),
            (3600, "CET", "Sun, 22 Nov 2026 18:02:03 +0100 (CET)"),
            (-12_600, "NST", "Sun, 22 Nov 2026 13:32:03 -0330 (NST)"),
            (45_900, "", "Mon, 23 Nov 2026 05:47:03 +1245"),
        ] {
            assert_eq!(Zone { utc_offset_s, name: name.into() }.date(WALL_US), date);
        }
        assert_eq!(Zone::utc().date(0), "Thu, 1 Jan 1970 00:00:00 +0000 (UTC)");
    }

    #[test]
    fn a_message_id_has_its_time_in_utc() {
        assert_eq!(compact_utc(WALL_US), "20261122170203");
    }
}
