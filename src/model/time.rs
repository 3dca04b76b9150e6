//! A moment, in milliseconds since 1970, written as RFC 3339 in UTC.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Serialize};

use super::Invalid;

static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// A moment in UTC, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(i64);

impl Time {
    /// From milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This moment, and so much later.
    pub fn after(self, wait: Duration) -> Time {
        Time(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This moment, and so much earlier.
    pub fn before(self, wait: Duration) -> Time {
        Time(self.0.saturating_sub(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    /// From `earlier` to this moment; nothing if it is not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

impl FromStr for Time {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // The library reads more than RFC 3339 has.
        let moment: Option<jiff::Timestamp> = text.parse().ok().filter(|_| is_rfc3339(text));
        let moment = moment.ok_or_else(|| Invalid("a time is written like 2026-11-27T12:00:00Z (RFC 3339)".into()))?;
        Ok(Time(moment.as_millisecond()))
    }
}

/// Whether the text has the form of a time, whatever its numbers are.
fn is_rfc3339(text: &str) -> bool {
    let fits = |text: &str, form: &str| {
        text.len() == form.len()
            && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't' | b' '),
                b'+' => matches!(byte, b'+' | b'-'),
                _ => byte == form,
            })
    };
    let Some((second, rest)) = text.split_at_checked("0000-00-00T00:00:00".len()) else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let fraction = rest.len() - zone.len();
    fits(second, "0000-00-00T00:00:00") && fraction != 1 && (matches!(zone, "Z" | "z") || fits(zone, "+00:00"))
}

impl TryFrom<String> for Time {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> String {
        match jiff::Timestamp::from_millisecond(time.0) {
            Ok(moment) => PRINTER.timestamp_to_string(&moment),
            Err(_) => format!("{}ms", time.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_the_rfc_writes_it() {
        let noon = Time::from_millis(1_795_780_800_000);
        for text in [
            "2026-11-27T12:00:00Z",
            "2026-11-27t12:00:00.000z",
            "2026-11-27 12:00:00Z",
            "2026-11-27T13:30:00.0000+01:30",
            "2026-11-27T07:00:00-05:00",
        ] {
            assert_eq!(text.parse(), Ok(noon), "{text}");
        }
        for text in [
            "",
            "2026-11-27",
            "20261127T120000Z",
            "2026-11-27T12Z",
            "2026-11-27T12:00Z",
            "2026-11-27T12:00:00",
            "2026-11-27T12:00:00.Z",
            "2026-11-27T12:00:00,5Z",
            "2026-11-27T12:00:00+0100",
            "2026-11-27T12:00:00+01:00:30",
            "2026-11-27T12:00:00+01:00[Europe/Berlin]",
            "-002026-11-27T12:00:00Z",
            "2026-13-27T12:00:00Z",
            "2026-11-27T12:00:00\u{e9}",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }
}
