//! Times of APIs.

/// Milliseconds since 1970 of a time of RFC 3339 in UTC (`2026-01-31T12:00:00.123Z`). `None` means that it is none.
pub fn time(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let clock = rest.strip_suffix('Z').or_else(|| rest.strip_suffix("+00:00"))?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    let years = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (years.div_euclid(400), years.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    u64::try_from(seconds * 1_000 + digits.parse::<i64>().ok()?).ok()
}

/// A time in UTC, as its parts: year, month, day, hour, minute, second.
fn parts(milliseconds: u64) -> (i64, i64, i64, u64, u64, u64) {
    let seconds = milliseconds / 1000;
    let (days, rest) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, date) =
        (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, date, rest / 3600, rest / 60 % 60, rest % 60)
}

/// A time in milliseconds since 1970 in the basic form of ISO 8601: `20260131T120000Z`.
pub fn stamp(milliseconds: u64) -> String {
    let (year, month, day, hour, minute, second) = parts(milliseconds);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// A time in milliseconds since 1970 in the form of RFC 3339: `2026-01-31T12:00:00Z`.
pub fn rfc3339(milliseconds: u64) -> String {
    let (year, month, day, hour, minute, second) = parts(milliseconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds() {
        assert_eq!(time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(time("2026-01-31T12:00:00.5Z"), Some(1_769_860_800_500));
        assert_eq!(time("2024-02-29T23:59:59.123456789Z"), Some(1_709_251_199_123));
        for wrong in ["", "2026-01-31", "x-1-1T0:0:0Z", "2026-01-31T12:00:00", "2026-01-31T12:00:00+02:00"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(1_440_938_160_000), "20150830T123600Z");
        assert_eq!(stamp(951_827_696_000), "20000229T123456Z");
        assert_eq!(rfc3339(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(time(&rfc3339(1_769_860_800_000)), Some(1_769_860_800_000));
    }
}
