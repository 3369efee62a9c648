//! What progress says on a terminal, in fifty columns: how far everything is, which blobs move, and for whom it waits.

use crate::{
    output::{LINE, counted},
    progress_events::{MovingBlob, Totals, Wait},
};
use dray_core::harmless;

/// Columns of the text that says how far a copy is: before it stand a sign and the time, `⠋ 2h `.
const STAND: usize = 44;
/// Columns of a line that names what moves.
const NAMES: usize = 44;
/// The most blobs, and the most hosts that are waited for, of which each has a line.
const BLOBS: usize = 3;
const WAITS: usize = 2;

/// How far a copy is, in about 44 columns: `1.2/3.4 GiB 12.0 MiB/s 40s 3/9+ images`.
pub fn stand(totals: &Totals, complete: bool, rate: f64) -> String {
    let more = if complete { "" } else { "+" };
    let left = totals.expected_bytes.saturating_sub(totals.sent_bytes);
    // A total that still grows gives no time that anybody could rely on.
    let time = match complete && rate > 1.0 && left > 0 {
        true => format!(" {}", short_time((left as f64 / rate).ceil() as u64)),
        false => String::new(),
    };
    let shown = format!(
        "{}{more} {}/s{time} {}/{}{more}",
        part_of(totals.sent_bytes, totals.expected_bytes),
        part_of(rate as u64, rate as u64).rsplit('/').next().unwrap_or_default(),
        totals.images_done,
        totals.images_planned,
    );
    // The word is what can be missed most easily.
    match shown.len() + " images".len() <= STAND {
        true => shown + " images",
        false => shown,
    }
}

/// A time in its two largest units, rounded down: `40s`, `12m`, `3h20m`.
fn short_time(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    }
}

/// The lines below: the blobs that move, or else the images that are under way, and whom is waited for.
pub fn below(blobs: &[MovingBlob], images: &[String], waits: &[Wait]) -> String {
    let mut lines = Vec::new();
    let one_line = |blob: &MovingBlob| {
        let digest = blob.digest.split(':').next_back().unwrap_or_default();
        let digest: String = digest.chars().take(8).collect();
        let right = format!("{digest} {}", part_of(blob.sent_bytes, blob.size_bytes));
        format!("{} {right}", shortened(&blob.image, NAMES.saturating_sub(right.len() + 1)))
    };
    lines.extend(blobs.iter().take(BLOBS).map(one_line));
    match blobs.len() {
        0 => lines.extend(Some(named(images)).filter(|line| !line.is_empty())),
        count if count > BLOBS => lines.push(format!("and {}", counted((count - BLOBS) as u64, "more blob"))),
        _ => {}
    }
    for wait in waits.iter().take(WAITS) {
        let right = format!("asks for {} s of patience", wait.seconds.ceil());
        lines.push(format!("{} {right}", shortened(&wait.registry, NAMES.saturating_sub(right.len() + 1))));
    }
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Two amounts in the unit of the second one: `1.2/3.4 GiB`.
fn part_of(sent: u64, expected: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len()).rev().find(|unit| expected >= 1 << (10 * unit)).unwrap_or(0);
    let scaled = |count: u64| count as f64 / (1u64 << (10 * unit)) as f64;
    match unit {
        0 => format!("{sent}/{expected} B"),
        _ => format!("{:.1}/{:.1} {}", scaled(sent), scaled(expected), UNITS[unit]),
    }
}

/// The end of a name, which tells images apart, in so many columns.
fn shortened(name: &str, columns: usize) -> String {
    let name = harmless(name, LINE);
    let count = name.chars().count();
    match count > columns {
        true => format!("…{}", name.chars().skip(count - columns + 1).collect::<String>()),
        false => name,
    }
}

/// Names what moves now.
fn named(moving: &[String]) -> String {
    match moving {
        [] => String::new(),
        [one] => shortened(one, NAMES),
        [one, others @ ..] => {
            let more = format!(" and {} more", others.len());
            format!("{}{more}", shortened(one, NAMES.saturating_sub(more.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "docker://registry.example.com/a/long/path/of/a/repository:1.2.3";

    #[test]
    fn how_far_it_is_fits_into_fifty_columns() {
        let totals = Totals {
            sent_bytes: 987 << 20,
            expected_bytes: 1000 << 20,
            images_done: 120,
            images_planned: 120,
            seconds: 100.0,
        };
        let shown = stand(&totals, true, 3.9 * f64::from(1 << 20));
        assert_eq!(shown, "987.0/1000.0 MiB 3.9 MiB/s 4s 120/120 images");
        assert_eq!(stand(&totals, false, 0.0), "987.0/1000.0 MiB+ 0 B/s 120/120+ images");
        let slow = stand(&totals, true, 900.0);
        assert_eq!(slow, "987.0/1000.0 MiB 900 B/s 4h12m 120/120");
        assert!([shown, slow].iter().all(|shown| shown.len() <= STAND));
    }

    #[test]
    fn what_moves_and_whom_it_waits_for_fits_too() {
        let blob = MovingBlob {
            image: NAME.into(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            size_bytes: 1000 << 20,
            sent_bytes: 12 << 20,
        };
        let wait = Wait { registry: "registry.of.a.long.name.example.com".into(), seconds: 29.5 };
        let shown = below(&[blob.clone(), blob.clone()], &[], std::slice::from_ref(&wait));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "  …a/repository:1.2.3 abababab 12.0/1000.0 MiB",
                "  …a/repository:1.2.3 abababab 12.0/1000.0 MiB",
                "  ….name.example.com asks for 30 s of patience"
            ]
        );
        let many = below(&vec![blob; 8], &[], &vec![wait; 9]);
        assert_eq!(many.lines().count(), BLOBS + 1 + WAITS);
        assert!(many.contains("  and 5 more blobs\n"), "{many}");
        assert!(below(&[], &[NAME.into(), NAME.into()], &[]).ends_with("repository:1.2.3 and 1 more"));
        assert_eq!(below(&[], &[], &[]), "");
        assert!(many.lines().chain(lines).all(|line| line.chars().count() <= 50));
    }
}
