//! Reads the entries of a tar archive one after another.

use super::{BLOCK, malformed, pax};
use std::io::{ErrorKind, Read, Result};

/// Bytes that can be read or skipped.
pub trait Source: Read {
    /// Skips exactly `bytes` bytes.
    ///
    /// # Errors
    /// Fails if the source ends before that.
    fn skip(&mut self, bytes: u64) -> Result<()>
    where
        Self: Sized,
    {
        let passed = std::io::copy(&mut self.by_ref().take(bytes), &mut std::io::sink())?;
        if passed < bytes { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file that comes before it.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A folder.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry: its metadata, and where its content begins.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name, as it is in the archive.
    pub name: Vec<u8>,
    /// Its type.
    pub kind: Kind,
    /// Size of its content in bytes.
    pub size: u64,
    /// Bytes from the beginning of the archive to its content.
    pub offset: u64,
    /// Permission bits, and what some programs write beside them.
    pub mode: u32,
    /// User ID of its owner.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Times of the last access and of the last change of metadata, where the archive gives them.
    pub other_times: [Option<(i64, u32)>; 2],
    /// Target of a link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Bytes. Names and extended headers that are longer are refused as an attack.
const EXTENSION: u64 = 1 << 20;

/// Reads entries. After `advance` has returned an entry, `content` reads its content.
pub struct Reader<S> {
    source: S,
    position: u64,
    /// Bytes of the content of the current entry that have not been read, and bytes of the padding after it.
    content: u64,
    padding: u64,
    has_global: bool,
}

impl<S: Source> Reader<S> {
    /// Starts at the beginning of an archive.
    pub fn new(source: S) -> Self {
        Reader { source, position: 0, content: 0, padding: 0, has_global: false }
    }

    /// The source that it reads from.
    pub fn source(&mut self) -> &mut S {
        &mut self.source
    }

    /// Whether an extended header for all entries has been read.
    pub fn has_global(&self) -> bool {
        self.has_global
    }

    /// Returns the source that it reads from.
    pub fn into_source(self) -> S {
        self.source
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(malformed("it ends in the middle of a header")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK;
        Ok(Some(block))
    }

    /// Skips the rest of the current entry.
    fn finish(&mut self) -> Result<()> {
        let rest = self.content + self.padding;
        self.source.skip(rest).map_err(cut)?;
        self.position += rest;
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads the content of a header that holds a name or an extension, and skips its padding.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION {
            return Err(malformed(format!("it has a name or an extended header of {size} bytes")));
        }
        let mut bytes = vec![0; size as usize];
        self.source.read_exact(&mut bytes).map_err(cut)?;
        self.position += size;
        (self.content, self.padding) = (0, super::padding(size));
        self.finish()?;
        Ok(bytes)
    }

    /// The next entry. `None` means the end of the archive.
    ///
    /// # Errors
    /// Fails with `InvalidData` if the archive is malformed.
    pub fn advance(&mut self) -> Result<Option<Entry>> {
        self.finish()?;
        let (mut name, mut link, mut extended) = (None, None, Vec::new());
        loop {
            let Some(block) = self.block()? else {
                return match name.is_some() || link.is_some() || !extended.is_empty() {
                    true => Err(malformed("it ends behind an extended header")),
                    false => Ok(None),
                };
            };
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            check(&block)?;
            let size = number(&block[124..136])?;
            match block[156] {
                b'L' => name = Some(text(&self.extension(size)?)),
                b'K' => link = Some(text(&self.extension(size)?)),
                b'x' => extended = pax::records(&self.extension(size)?)?,
                // A global extended header applies to every entry. Nothing in it matters here.
                b'g' => {
                    self.has_global = true;
                    self.extension(size)?;
                }
                b'S' => return Err(malformed("it has a sparse file, which no image may have")),
                flag => return self.entry(&block, flag, size, name, link, extended).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK as usize],
        flag: u8,
        size: u64,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
        extended: Vec<(String, Vec<u8>)>,
    ) -> Result<Entry> {
        let kind = match flag {
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(malformed(format!("it has an entry of the unknown type {:?}", other as char)));
            }
        };
        let small = |range: std::ops::Range<usize>| {
            number(&block[range]).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let mut entry = Entry {
            name: name.unwrap_or_else(|| full_name(block)),
            kind,
            size,
            offset: 0,
            mode: small(100..108)?,
            uid: small(108..116)?,
            gid: small(116..124)?,
            mtime: (signed(&block[136..148])?, 0),
            other_times: gnu_times(block),
            link: link.unwrap_or_else(|| text(&block[157..257])),
            device: (small(329..337).unwrap_or(0), small(337..345).unwrap_or(0)),
            xattrs: Vec::new(),
        };
        for (key, value) in extended {
            entry.extend(&key, value)?;
        }
        // Old Unix tars have no type for folders: a name that ends with a slash is a folder.
        if entry.kind == Kind::File && entry.name.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        // Only files have content, whatever the header says. The links of old archives have a size.
        if entry.kind != Kind::File {
            entry.size = 0;
        }
        if entry.size > i64::MAX as u64 / 2 {
            return Err(malformed(format!("it has an entry of {} bytes", entry.size)));
        }
        entry.offset = self.position;
        (self.content, self.padding) = (entry.size, super::padding(entry.size));
        Ok(entry)
    }

    /// Reads from the content of the current entry. 0 means the end of the content.
    ///
    /// # Errors
    /// Fails if the archive ends before the content does.
    pub fn content(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = (buffer.len() as u64).min(self.content) as usize;
        if most == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(cut(ErrorKind::UnexpectedEof.into()));
        }
        self.content -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

impl Entry {
    fn extend(&mut self, key: &str, value: Vec<u8>) -> Result<()> {
        let shown = || malformed(format!("an extended header gives a wrong {key}"));
        let number = || std::str::from_utf8(&value).ok().and_then(|text| text.parse::<u64>().ok());
        match key {
            "path" => self.name = value,
            "linkpath" => self.link = value,
            "size" => self.size = number().ok_or_else(shown)?,
            "uid" => self.uid = number().and_then(|id| u32::try_from(id).ok()).ok_or_else(shown)?,
            "gid" => self.gid = number().and_then(|id| u32::try_from(id).ok()).ok_or_else(shown)?,
            "atime" => self.other_times[0] = Some(time(&value).ok_or_else(shown)?),
            "ctime" => self.other_times[1] = Some(time(&value).ok_or_else(shown)?),
            "mtime" => self.mtime = time(&value).ok_or_else(shown)?,
            _ if key.starts_with("GNU.sparse.") => {
                return Err(malformed("it has a sparse file, which no image may have"));
            }
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattrs.push((name.into(), value));
                }
            }
        }
        Ok(())
    }
}

/// Parses a time in seconds such as `1700000000.123`, which can be negative.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let mut nanoseconds: u32 = digits.parse().ok()?;
    if seconds.starts_with('-') && nanoseconds > 0 {
        whole = whole.checked_sub(1)?;
        nanoseconds = 1_000_000_000 - nanoseconds;
    }
    Some((whole, nanoseconds))
}

fn cut(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => malformed("it ends in the middle of an entry"),
        _ => error,
    }
}

/// The bytes before the first NUL.
fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn full_name(block: &[u8; BLOCK as usize]) -> Vec<u8> {
    let name = text(&block[..100]);
    // GNU headers end their magic with spaces, and use the bytes of the prefix for something else.
    let prefix = if &block[257..263] == b"ustar\0" { text(&block[345..500]) } else { Vec::new() };
    if prefix.is_empty() { name } else { [prefix, name].join(&b'/') }
}

/// The times of access and change in a header of GNU tar.
fn gnu_times(block: &[u8; BLOCK as usize]) -> [Option<(i64, u32)>; 2] {
    let is_gnu = &block[257..265] == b"ustar  \0";
    [345..357, 357..369].map(|range| {
        let field = &block[range];
        let seconds = (is_gnu && field[0] != 0).then(|| signed(field).ok()).flatten();
        seconds.map(|seconds| (seconds, 0))
    })
}

/// A number that may be negative: after 0xff it is a big-endian number in two's complement (GNU).
fn signed(field: &[u8]) -> Result<i64> {
    if field[0] != 0xff {
        return Ok(i64::try_from(number(field)?).unwrap_or(0));
    }
    let (filling, low) = field.split_at(field.len() - 8);
    let low = low.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)) as i64;
    match filling.iter().all(|byte| *byte == 0xff) && low < 0 {
        true => Ok(low),
        false => Err(malformed("a header has a number that is too small")),
    }
}

/// Parses octal digits, or a big-endian number after 0x80 (GNU).
fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        // 0xff begins a negative number, which only a time can be.
        if field[0] == 0xff {
            return Ok(0);
        }
        let (first, rest) = (u64::from(field[0] & 0x7f), &field[1..]);
        return rest
            .iter()
            .try_fold(first, |number, byte| number.checked_mul(256)?.checked_add(u64::from(*byte)))
            .ok_or_else(|| malformed("a header has a number that is too large"));
    }
    let digits: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, 0 | b' ')).collect();
    digits
        .iter()
        .try_fold(0u64, |number, digit| match digit {
            b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .ok_or_else(|| malformed("a header has a malformed number"))
}

fn check(block: &[u8; BLOCK as usize]) -> Result<()> {
    let said = number(&block[148..156])?;
    let blank = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
    let bytes = || block.iter().enumerate().map(blank);
    let unsigned: u64 = bytes().map(u64::from).sum();
    // Some old programs summed signed bytes.
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    if said == unsigned || i64::try_from(said).is_ok_and(|said| said == signed) {
        return Ok(());
    }
    Err(malformed("a header's checksum is wrong: it is no tar archive, or it is damaged"))
}
