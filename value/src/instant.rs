//! Instants as RFC 3339 text, over the whole range of 64-bit milliseconds.

use std::fmt::{self, Write};

const DAY_MS: i64 = 86_400_000;

/// `2026-11-23T14:33:26.706-00:00`, as Clojure prints. A year beyond 9999 or before 0 gets a sign.
pub(crate) fn write(f: &mut impl Write, ms: i64) -> fmt::Result {
    let (days, ms) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = date_of(days);
    match year {
        0..=9999 => write!(f, "{year:04}")?,
        _ => write!(f, "{year:+05}")?,
    }
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    write!(f, "-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}-00:00")
}

/// Milliseconds since 1970 of `2026`, `2026-11`, `2026-11-23`, `2026-11-23T14`, `…:33`, `…:26`, `….706…`,
/// each with `Z`, an offset or nothing (UTC). Digits beyond milliseconds are dropped.
pub(crate) fn parse(text: &str) -> Result<i64, &'static str> {
    let mut rest = Rest(text.as_bytes());
    let year = rest.year()?;
    let (mut month, mut day, mut hour, mut minute, mut second, mut millis) = (1, 1, 0, 0, 0, 0);
    if rest.is_date_part() {
        month = rest.part()?;
        if rest.is_date_part() {
            day = rest.part()?;
            if matches!(rest.0, [b'T' | b't' | b' ', ..]) {
                hour = rest.part()?;
                if matches!(rest.0, [b':', ..]) {
                    minute = rest.part()?;
                    if matches!(rest.0, [b':', ..]) {
                        second = rest.part()?;
                        millis = rest.millis()?;
                    }
                }
            }
        }
    }
    let offset = rest.offset_minutes()?;
    if !rest.0.is_empty() {
        return Err("needs a date such as 2026-11-23T14:33:26.706Z");
    }
    if !(1..=12).contains(&month) {
        return Err("month out of range");
    }
    if day < 1 || day > days_in_month(year, month) {
        return Err("day out of range");
    }
    // A leap second is the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 || (second == 60 && minute != 59) {
        return Err("time of day out of range");
    }
    let of_day = ((hour * 60 + minute - offset) * 60 + second) * 1000 + millis;
    let ms =
        i128::from(days_since_epoch(year, month, day)) * i128::from(DAY_MS) + i128::from(of_day);
    i64::try_from(ms).map_err(|_| "year out of range")
}

/// What is not yet read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn digits(&mut self, count: usize) -> Result<i64, &'static str> {
        let (digits, rest) = self.0.split_at_checked(count).ok_or("ends too early")?;
        self.0 = rest;
        digits.iter().try_fold(0, |n, byte| match byte {
            b'0'..=b'9' => Ok(n * 10 + i64::from(byte - b'0')),
            _ => Err("needs a date such as 2026-11-23T14:33:26.706Z"),
        })
    }

    fn digit_count(&self) -> usize {
        self.0.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// Four digits, or a sign and four to nine.
    fn year(&mut self) -> Result<i64, &'static str> {
        let sign = match self.0 {
            [b'+', rest @ ..] => {
                self.0 = rest;
                1
            }
            [b'-', rest @ ..] => {
                self.0 = rest;
                -1
            }
            _ => return self.digits(4),
        };
        match self.digit_count() {
            count @ 4..=9 => Ok(sign * self.digits(count)?),
            _ => Err("year out of range"),
        }
    }

    /// `-` and two digits that are not the hours of an offset.
    fn is_date_part(&self) -> bool {
        matches!(self.0, [b'-', ..]) && self.0.get(3) != Some(&b':')
    }

    /// A separator, already looked at, and two digits.
    fn part(&mut self) -> Result<i64, &'static str> {
        self.0 = self.0.get(1..).unwrap_or_default();
        self.digits(2)
    }

    fn millis(&mut self) -> Result<i64, &'static str> {
        let [b'.', rest @ ..] = self.0 else { return Ok(0) };
        self.0 = rest;
        let count = self.digit_count();
        if count == 0 {
            return Err("needs digits after the point");
        }
        let millis = self.digits(count.min(3))? * [100, 10, 1][count.min(3) - 1];
        self.0 = self.0.get(count.saturating_sub(3)..).unwrap_or_default();
        Ok(millis)
    }

    fn offset_minutes(&mut self) -> Result<i64, &'static str> {
        let sign = match self.0 {
            [b'Z' | b'z', rest @ ..] => {
                self.0 = rest;
                return Ok(0);
            }
            [b'+', ..] => 1,
            [b'-', ..] => -1,
            _ => return Ok(0),
        };
        let hours = self.part()?;
        let minutes = if matches!(self.0, [b':', ..]) { self.part()? } else { self.digits(2)? };
        match hours <= 23 && minutes <= 59 {
            true => Ok(sign * (hours * 60 + minutes)),
            false => Err("offset out of range"),
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days in 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March, so that the leap day comes last.
const EPOCH: i64 = 719_468;

fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * ERA_DAYS + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(ms: i64) -> String {
        let mut text = String::new();
        write(&mut text, ms).unwrap();
        text
    }

    #[test]
    fn prints_as_clojure_and_reads_back_over_the_whole_range() {
        assert_eq!(printed(0), "1970-01-01T00:00:00.000-00:00");
        assert_eq!(printed(-1), "1969-12-31T23:59:59.999-00:00");
        assert_eq!(printed(951_782_400_000), "2000-02-29T00:00:00.000-00:00");
        assert_eq!(printed(1_795_444_406_706), "2026-11-23T14:33:26.706-00:00");
        let mut ms = i64::MIN;
        loop {
            assert_eq!(parse(&printed(ms)), Ok(ms));
            match ms.checked_add(i64::MAX / 5000 + 12_345) {
                Some(next) => ms = next,
                None => break,
            }
        }
        assert_eq!(parse(&printed(i64::MAX)), Ok(i64::MAX));
    }

    #[test]
    fn every_day_of_800_years_is_one_after_the_last() {
        let mut expected = days_since_epoch(1599, 12, 31);
        for year in 1600..2400 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    expected += 1;
                    assert_eq!(days_since_epoch(year, month, day), expected);
                    assert_eq!(date_of(expected), (year, month, day));
                }
            }
        }
    }

    #[test]
    fn parts_may_be_left_out() {
        let day = 1_795_392_000_000;
        for (text, ms) in [
            ("2026-11-23", day),
            ("2026-11-23Z", day),
            ("2026-11-23T14", day + 14 * 3_600_000),
            ("2026-11-23T14:33+01:00", day + (13 * 60 + 33) * 60_000),
            ("2026-11-23T14:33:26.7069Z", day + (14 * 3600 + 33 * 60 + 26) * 1000 + 706),
            ("2026-11-23T14:33:26.7", day + (14 * 3600 + 33 * 60 + 26) * 1000 + 700),
            ("2026-11-23T00:00-0130", day + 90 * 60_000),
            ("1970-01:00", 3_600_000),
            ("1970-01", 0),
            ("1972", 2 * 365 * DAY_MS),
            ("1971-12-31T23:59:60Z", 2 * 365 * DAY_MS),
        ] {
            assert_eq!(parse(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_date() {
        for text in [
            "",
            "1",
            "197",
            "19700",
            "1970-",
            "1970-13",
            "1970-00",
            "1970-02-29",
            "1900-02-29",
            "1970-01-01T",
            "1970-01-01T24",
            "1970-01-01T00:60",
            "1970-01-01T00:00:61",
            "1970-01-01T00:00:00.",
            "1970-01-01T00:00:00.1x",
            "1970-01-01T00:00+24:00",
            "1970-01-01+1",
            "+999999999-01-01",
            "-999999999",
            "١٩٧٠",
            "1970-01-01T00:00:60",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
