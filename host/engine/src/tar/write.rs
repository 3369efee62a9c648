//! Headers of the archives that dray writes. They are ustar headers without owner and time, so that the same content
//! always makes the same archive.

use super::{BLOCK, malformed};
use std::io::Result;

/// The end of an archive: two blocks of zeros.
pub(crate) const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// Bytes from the end of the content to the next block.
pub(crate) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

const READABLE: u32 = 0o444;
/// Permission bits of a member that is not whole yet.
pub(crate) const BEGUN: u32 = 0;

/// The header of a regular file.
///
/// # Errors
/// Fails if the name is too long.
pub(crate) fn header(name: &str, size: u64) -> Result<[u8; BLOCK as usize]> {
    entry(name, size, READABLE, b'0', "")
}

/// The header of a file that is not whole yet. Nobody has permissions for it.
///
/// # Errors
/// Fails if the name is too long.
pub(crate) fn begun(name: &str, size: u64) -> Result<[u8; BLOCK as usize]> {
    entry(name, size, BEGUN, b'0', "")
}

/// The header of a hard link to `target`. `None` means that the name of the target is too long for a header.
///
/// # Errors
/// Fails if the name is too long.
pub(crate) fn link(name: &str, target: &str) -> Result<Option<[u8; BLOCK as usize]>> {
    if target.len() <= 100 { entry(name, 0, READABLE, b'1', target).map(Some) } else { Ok(None) }
}

fn entry(name: &str, size: u64, mode: u32, kind: u8, target: &str) -> Result<[u8; BLOCK as usize]> {
    let mut block = [0; BLOCK as usize];
    let (prefix, rest) = split(name).ok_or_else(|| malformed(format!("the name {name} is too long")))?;
    block[..rest.len()].copy_from_slice(rest.as_bytes());
    block[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Splits a name into a prefix of at most 155 bytes and a name of at most 100 bytes.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    let cuts = name.match_indices('/').map(|(at, _)| (&name[..at], &name[at + 1..]));
    cuts.into_iter().find(|(prefix, rest)| prefix.len() <= 155 && (1..=100).contains(&rest.len()))
}

#[cfg(test)]
mod tests {
    use super::{super::Reader, *};

    impl super::super::Source for &[u8] {}

    #[test]
    fn what_is_written_is_read() {
        let long = format!("{}/{}", "p".repeat(120), "n".repeat(90));
        for (name, size) in [("a", 0), (long.as_str(), 5), ("big", (1 << 33) + 1)] {
            let block = header(name, size).unwrap();
            let entry = Reader::new(&block[..]).advance().unwrap().unwrap();
            assert_eq!((entry.name.as_slice(), entry.size, entry.mode), (name.as_bytes(), size, 0o444));
        }
        assert!(header(&"n".repeat(101), 0).is_err());
    }

    #[test]
    fn damage_is_noticed() {
        let mut block = header("a", 0).unwrap();
        block[0] = b'b';
        assert!(Reader::new(&block[..]).advance().is_err());
        assert!(Reader::new(&block[..100]).advance().is_err());
        assert!(Reader::new(&[][..]).advance().unwrap().is_none());
    }
}
