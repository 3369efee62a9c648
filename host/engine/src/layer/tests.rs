use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// Entries that belong to whoever runs the test: name, type, link, content.
fn archive(entries: &[(&str, u8, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, flag, link, content) in entries {
        let mut block = [0; 512];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, if *flag == b'5' { b"0000755\0" } else { b"0004640\0" });
        put(108, format!("{:07o}\0", rustix::process::getuid().as_raw()).as_bytes());
        put(116, format!("{:07o}\0", rustix::process::getgid().as_raw()).as_bytes());
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, format!("{:011o}\0", 1_600_000_000).as_bytes());
        put(148, b"        ");
        put(156, &[*flag]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    // tar programs pad an archive to records of twenty blocks.
    bytes.resize((bytes.len() + 1024).next_multiple_of(10240), 0);
    bytes
}

fn unpacked(bytes: &[u8], folder: &Path) -> Result<Unpacked> {
    unpack(File::open(folder)?, Path::new("layer"), &mut &bytes[..])?.keep()
}

fn rebuilt(folder: &Path) -> Result<Vec<u8>> {
    let tar_split = File::open(folder.join("layer/tar-split.gz"))?;
    let mut bytes = Vec::new();
    Rebuilt::new(tar_split, File::open(folder.join("layer/diff"))?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_layer_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let large = vec![7; 300_000];
    let tar = archive(&[
        ("./", b'5', "", b""),
        ("./usr/", b'5', "", b""),
        ("./usr/lib/", b'5', "", b""),
        ("./lib", b'2', "/usr/lib", b""),
        ("./lib/large", b'0', "", &large),
        ("./not/named/before", b'0', "", b"x"),
        ("hard", b'1', "./usr/lib/large", b""),
        ("pipe", b'6', "", b""),
        ("./not/.wh.gone", b'0', "", b""),
        ("empty", b'0', "", b""),
    ]);
    let layer = unpacked(&tar, folder.path()).unwrap();
    assert_eq!(layer.size, tar.len() as u64);
    assert_eq!(layer.digest, Digest::of(&tar));
    assert_eq!(layer.uids, BTreeSet::from([rustix::process::getuid().as_raw()]));
    assert_eq!(rebuilt(folder.path()).unwrap(), tar);

    let diff = folder.path().join("layer/diff");
    let stat = |name: &str| std::fs::symlink_metadata(diff.join(name)).unwrap();
    // A link is followed as if the layer were the whole file system.
    let file = stat("usr/lib/large");
    assert_eq!(
        (file.len(), file.mtime(), file.permissions().mode() & 0o7777),
        (300_000, 1_600_000_000, 0o4640)
    );
    assert_eq!(stat("hard").ino(), file.ino());
    assert_eq!(stat("usr").mtime(), 1_600_000_000);
    let gone = stat("not/gone");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(stat("pipe").file_type().is_fifo());

    let compressed = zstd::encode_all(&tar[..], 1).unwrap();
    let other = tempfile::tempdir().unwrap();
    let layer = unpacked(&compressed, other.path()).unwrap();
    assert_eq!(layer.digest, Digest::of(&tar));
    assert_eq!(rebuilt(other.path()).unwrap(), tar);
}

#[test]
fn what_changed_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    unpacked(&archive(&[("file", b'0', "", b"content")]), folder.path()).unwrap();
    let file = folder.path().join("layer/diff/file");
    std::fs::write(&file, "con").unwrap();
    assert!(rebuilt(folder.path()).unwrap_err().to_string().contains("shorter"));
    std::fs::remove_file(&file).unwrap();
    assert!(rebuilt(folder.path()).unwrap_err().to_string().contains("file"));
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(rebuilt(folder.path()).is_err());
}

#[test]
fn nothing_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    let absolute = format!("{path}/absolute");
    for (entries, refused) in [
        (vec![("../a", b'0', "", &b"x"[..])], true),
        (vec![("a/../../b", b'0', "", b"x")], true),
        // The target of the link does not exist within the layer.
        (vec![("link", b'2', path, b""), ("link/a", b'0', "", b"x")], true),
        (vec![("link", b'2', "../../..", b""), ("link/a", b'0', "", b"x")], false),
        (vec![(absolute.as_str(), b'0', "", b"x")], false),
        (vec![("hard", b'1', "/etc/passwd", b"")], true),
        (vec![("hard", b'1', "../../../etc/passwd", b"")], true),
        (vec![(".wh...", b'0', "", b"")], true),
        (vec![(".wh.", b'0', "", b"")], true),
        (vec![(".wh.a", b'0', "", b"content")], true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let done = unpacked(&archive(&entries), folder.path());
        assert_eq!(done.is_err(), refused, "{entries:?}: {done:?}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{entries:?}");
        if refused {
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{entries:?}");
        }
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let tar = archive(&[
        ("a/", b'5', "", b""),
        ("a/b", b'0', "", b"old"),
        ("a", b'0', "", b"a file now"),
        ("c", b'0', "", b""),
        ("c/", b'5', "", b""),
        ("c/d", b'0', "", b"d"),
        (".wh.c", b'0', "", b""),
    ]);
    unpacked(&tar, folder.path()).unwrap();
    let diff = folder.path().join("layer/diff");
    assert_eq!(std::fs::read(diff.join("a")).unwrap(), b"a file now");
    assert!(std::fs::symlink_metadata(diff.join("c")).unwrap().file_type().is_char_device());
}
