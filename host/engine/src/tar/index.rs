//! An index of the members of an archive: their offsets by their names.

use super::{Kind, Reader, Source, malformed};
use std::{collections::BTreeMap, io::Result};

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// A file: the offset of its content from the beginning of the archive, and its size in bytes.
    File(u64, u64),
    /// Another name of a member.
    Link(String),
}

/// The members of an archive.
#[derive(Debug, Default)]
pub struct Index {
    members: BTreeMap<String, Member>,
}

/// Number of entries above which an archive is refused as an attack. An archive of a thousand images has about ten
/// thousand.
const ENTRIES: usize = 250_000;
/// The most bytes that all names may have together.
const NAMES: usize = 32 << 20;
/// The most links that are followed from one name.
const LINKS: usize = 16;

impl Index {
    /// Reads the headers of an archive.
    ///
    /// # Errors
    /// Fails with `InvalidData` if the archive is malformed, or if a name or a link leads out of it.
    pub fn read(source: impl Source) -> Result<Self> {
        let mut reader = Reader::new(source);
        let mut index = Index::default();
        let (mut entries, mut names) = (0, 0);
        while let Some(entry) = reader.advance()? {
            entries += 1;
            names += entry.name.len() + entry.link.len();
            if entries > ENTRIES || names > NAMES {
                return Err(malformed(format!("it has more than {ENTRIES} entries, or very long names")));
            }
            let name = String::from_utf8(entry.name)
                .map_err(|error| malformed(format!("it has the name {:?}", error.to_string())))?;
            let link = || String::from_utf8_lossy(&entry.link).into_owned();
            let clean = |base: &str, name: &str| {
                resolve(base, name).ok_or_else(|| malformed(format!("the name {name:?} leads out of it")))
            };
            // tar also reads absolute names as relative to the root of the archive.
            let name = clean("", name.trim_start_matches('/'))?;
            if name.is_empty() && entry.kind != Kind::Directory {
                continue;
            }
            let member = match entry.kind {
                Kind::File => Member::File(entry.offset, entry.size),
                Kind::HardLink => Member::Link(clean("", &link())?),
                Kind::Symlink => {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    Member::Link(clean(folder, &link())?)
                }
                Kind::Directory => continue,
                Kind::Character | Kind::Block | Kind::Fifo => {
                    return Err(malformed(format!("{name:?} is neither a file nor a link")));
                }
            };
            if let Some(before) = index.members.insert(name.clone(), member.clone())
                && before != member
            {
                return Err(malformed(format!("it has {name:?} twice")));
            }
        }
        Ok(index)
    }

    /// Adds `by` bytes to all offsets, for an archive that begins at that offset of a file.
    pub fn shift(&mut self, by: u64) {
        for member in self.members.values_mut() {
            if let Member::File(offset, _) = member {
                *offset += by;
            }
        }
    }

    /// Adds a file. A member of the same name is replaced.
    pub fn insert(&mut self, name: &str, offset: u64, size: u64) {
        self.members.insert(name.into(), Member::File(offset, size));
    }

    /// Removes a name.
    pub fn remove(&mut self, name: &str) {
        self.members.remove(name);
    }

    /// Offset and size in bytes of a file. `None` means that no file has that name.
    ///
    /// # Errors
    /// Fails with `InvalidData` if links form a cycle.
    pub fn find(&self, name: &str) -> Result<Option<(u64, u64)>> {
        let mut name = name;
        let mut through;
        for _ in 0..LINKS {
            match self.members.get(name) {
                None => match self.through_folder(name) {
                    Some(led) => {
                        through = led;
                        name = &through;
                    }
                    None => return Ok(None),
                },
                Some(Member::File(offset, size)) => return Ok(Some((*offset, *size))),
                Some(Member::Link(target)) => name = target,
            }
        }
        Err(malformed(format!("the link {name:?} leads round in circles")))
    }

    /// Resolves a name that leads through a folder that is a link.
    fn through_folder(&self, name: &str) -> Option<String> {
        name.match_indices('/').find_map(|(at, _)| match self.members.get(&name[..at]) {
            Some(Member::Link(target)) => Some(format!("{target}{}", &name[at..])),
            _ => None,
        })
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }
}

/// Removes `.`, `..` and doubled slashes from a name. `None` means that the name is absolute or leads out of the
/// archive.
fn resolve(base: &str, name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    let depth = parts.len();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            // The name of a member must not contain `..`. The target of a link may, if it stays within the archive.
            ".." if depth > 0 => {
                parts.pop()?;
            }
            ".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{super::header, *};

    fn archive(entries: &[(&str, u8, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, flag, link) in entries {
            let mut block = header(name, 0).unwrap();
            block[156] = *flag;
            block[157..157 + link.len()].copy_from_slice(link.as_bytes());
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend(block);
        }
        bytes
    }

    #[test]
    fn links_stay_within_the_archive() {
        let index = Index::read(
            &archive(&[("./a/layer.tar", b'2', "../b/c.tar"), ("b/c.tar", b'0', ""), ("h", b'1', "b/c.tar")])
                [..],
        )
        .unwrap();
        assert_eq!(index.find("a/layer.tar").unwrap(), Some((1024, 0)));
        assert_eq!(index.find("h").unwrap(), Some((1024, 0)));
        assert_eq!(index.find("x").unwrap(), None);
        let folders =
            Index::read(&archive(&[("/c/x", b'0', ""), ("b", b'2', "a"), ("a", b'2', "./c")])[..]).unwrap();
        assert_eq!(folders.find("b/x").unwrap(), Some((512, 0)));
        let round = Index::read(&archive(&[("a", b'2', "b/a"), ("b", b'2', "a")])[..]).unwrap();
        assert!(round.find("a/x").is_err());
        let circle = Index::read(&archive(&[("a", b'2', "b"), ("b", b'2', "a")])[..]).unwrap();
        assert!(circle.find("a").is_err());
    }

    #[test]
    fn names_that_lead_out_devices_and_doubles_are_refused() {
        for entries in [
            &[("../x", b'0', "")][..],
            &[("/../x", b'0', "")],
            &[("a/../../x", b'0', "")],
            &[("a", b'2', "/etc/passwd")],
            &[("a", b'2', "../x")],
            &[("a", b'1', "../x")],
            &[("a", b'3', "")],
            &[("a", b'0', ""), ("a", b'0', "")],
            &[("a", b'S', "")],
            &[("a", b'Z', "")],
        ] {
            assert!(Index::read(&archive(entries)[..]).is_err(), "{entries:?}");
        }
    }
}
