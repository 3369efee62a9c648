//! What a component may ask of the files of its place, in any order: nothing outside of them changes.
#![no_main]

use dray_engine::files::{Change, Root};
use libfuzzer_sys::{arbitrary::Arbitrary, fuzz_target};
use std::fs;

#[derive(Arbitrary, Debug)]
enum Ask<'a> {
    Read(&'a str, u64, Option<u64>),
    Entries(&'a str),
    Digest(&'a str, bool),
    Replace(&'a str, Option<&'a [u8]>, &'a [u8]),
    Remove(&'a str),
    Commit(Vec<&'a str>, Vec<Changing<'a>>),
    Unpack(&'a str, &'a str, &'a str),
}

#[derive(Arbitrary, Debug)]
enum Changing<'a> {
    Replace(&'a str, Option<&'a [u8]>, &'a [u8]),
    Folder(&'a str),
    Move(&'a str, &'a str),
    Symlink(&'a str, &'a str),
    Remove(&'a str),
}

fn change(changing: &Changing) -> Change {
    match *changing {
        Changing::Replace(path, expected, content) => {
            Change::Replace { path: path.into(), expected: expected.map(Into::into), content: content.into() }
        }
        Changing::Folder(path) => Change::Folder(path.into()),
        Changing::Move(from, to) => Change::Move(from.into(), to.into()),
        Changing::Symlink(path, target) => Change::Symlink(path.into(), target.into()),
        Changing::Remove(path) => Change::Remove(path.into()),
    }
}

fuzz_target!(|asked: Vec<Ask>| {
    let top = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let place = top.path().join("place");
    fs::create_dir(&place).expect("a folder");
    fs::write(top.path().join("sentinel"), "outside").expect("a file");
    let root = Root::folder(&place);
    for ask in asked.iter().take(8) {
        match ask {
            Ask::Read(path, offset, length) => _ = root.read(path, *offset, *length),
            Ask::Entries(path) => _ = root.entries(path),
            Ask::Digest(path, plain) => _ = root.digest(path, *plain),
            Ask::Replace(path, expected, content) => _ = root.replace(path, *expected, content),
            Ask::Remove(path) => _ = root.remove(&[(*path).to_owned()]),
            Ask::Commit(locks, changes) => {
                let locks: Vec<String> = locks.iter().map(|lock| (*lock).to_owned()).collect();
                let changes: Vec<Change> = changes.iter().map(change).collect();
                _ = root.commit(&locks, &changes);
            }
            Ask::Unpack(tar_split, folder, path) => _ = root.unpack_again(tar_split, folder, path),
        }
    }
    assert!(place.is_dir());
    assert_eq!(fs::read(top.path().join("sentinel")).expect("it stays"), b"outside");
    assert_eq!(fs::read_dir(top.path()).expect("it stays").count(), 2);
});
