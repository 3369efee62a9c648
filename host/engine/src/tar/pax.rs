//! Extended headers: `LENGTH KEY=VALUE\n` (POSIX.1-2017, pax extended header).

use super::malformed;
use std::io::Result;

/// The records of an extended header.
pub(super) fn records(mut text: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let wrong = || malformed("an extended header is malformed");
    let mut records = Vec::new();
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length: usize =
            std::str::from_utf8(&text[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        if length <= space + 1 || length > text.len() || text[length - 1] != b'\n' {
            return Err(wrong());
        }
        let record = &text[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let key = String::from_utf8(record[..equals].to_vec()).map_err(|_| wrong())?;
        records.push((key, record[equals + 1..].to_vec()));
        text = &text[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_long_as_they_say() {
        let read = records(b"9 path=a\n13 size=12345\n").unwrap_err();
        assert_eq!(read.kind(), std::io::ErrorKind::InvalidData);
        let read = records(b"9 path=a\n14 size=12345\n").unwrap();
        assert_eq!(read[1], ("size".into(), b"12345".to_vec()));
        for bad in [&b"0 a=b\n"[..], b"99 a=b\n", b"6 a=bc", b"x", b"5 ab\n"] {
            assert!(records(bad).is_err(), "{bad:?}");
        }
    }
}
