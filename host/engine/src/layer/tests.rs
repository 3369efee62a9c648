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

#[test]
fn a_chunked_layer_is_found_file_by_file() {
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let tar = archive(&[
        ("a/", b'5', "", b""),
        ("a/large", b'0', "", &large),
        ("a/empty", b'0', "", b""),
        ("a/small", b'0', "", b"small"),
        ("hard", b'1', "a/small", b""),
        ("soft", b'2', "a/large", b""),
    ]);
    let mut layer = Vec::new();
    let written = write_chunked(&tar[..], &mut layer, None).unwrap();
    let table = written.table.unwrap();
    assert_eq!(written.plain, Digest::of(&tar));
    // To others it is a layer in Zstandard.
    assert_eq!(zstd::decode_all(&layer[..]).unwrap(), tar);
    let numbers = |key: &str| -> Vec<usize> {
        let text = &table[&format!("io.github.containers.zstd-chunked.{key}")];
        text.split(':').map(|number| number.parse().unwrap()).collect()
    };
    let (toc, split) = (numbers("manifest-position"), numbers("tarsplit-position"));
    let packed = &layer[toc[0]..toc[0] + toc[1]];
    assert_eq!(table["io.github.containers.zstd-chunked.manifest-checksum"], Digest::of(packed).to_string());
    let plain = zstd::decode_all(packed).unwrap();
    assert_eq!((plain.len(), toc[3]), (toc[2], 1));
    let toc: serde_json::Value = serde_json::from_slice(&plain).unwrap();
    let packed = &layer[split[0]..split[0] + split[1]];
    assert_eq!(toc["tarSplitDigest"], Digest::of(packed).to_string());
    let plain = zstd::decode_all(packed).unwrap();
    assert_eq!(plain.len(), split[2]);
    let footer = &layer[layer.len() - 64..];
    assert_eq!(&footer[56..], b"GNUlInUx");
    // The content of each file is a frame of its own, and with the tar-split all of them make up the tar again.
    let mut contents = std::collections::HashMap::new();
    for entry in toc["entries"].as_array().unwrap() {
        let (at, end) = (entry["offset"].as_u64().unwrap(), entry["endOffset"].as_u64().unwrap());
        let name = entry["name"].as_str().unwrap().to_owned();
        if entry["size"].as_u64() == Some(0) {
            assert_eq!((at, end, entry.get("digest")), (0, 0, None), "{name}");
            continue;
        }
        let content = zstd::decode_all(&layer[at as usize..end as usize]).unwrap();
        assert_eq!(entry["digest"], Digest::of(&content).to_string(), "{name}");
        contents.insert(name, content);
    }
    let mut again = Vec::new();
    for piece in tar_split::plain_pieces(&plain[..]) {
        match piece.unwrap() {
            Piece::Bytes(bytes) => again.extend(bytes),
            Piece::File(_, 0) => {}
            Piece::File(name, _) => again.extend(&contents[std::str::from_utf8(&name).unwrap()]),
        }
    }
    assert_eq!(again, tar);
    let kinds: Vec<_> =
        toc["entries"].as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["dir", "reg", "reg", "reg", "hardlink", "symlink"]);
}

#[test]
fn a_tar_that_no_table_describes_is_still_compressed() {
    let name = "n".repeat(5000);
    let record = format!(" path={name}\n");
    let long = format!("{}{record}", record.len() + 4);
    let twice = archive(&[("./a", b'0', "", b"1"), ("a", b'0', "", b"2"), ("b", b'0', "", b"3")]);
    let global = archive(&[("pax", b'g', "", b"9 a=bcdef"), ("a", b'0', "", b"1")]);
    for (tar, why) in [
        (twice, "two entries of one name"),
        (global, "extended header"),
        (archive(&[("a", b'V', "", b"")]), "unknown type"),
        (archive(&[("l", b'x', "", long.as_bytes()), ("a", b'0', "", b"1")]), "too long names"),
        (archive(&[("t", b'x', "", b"22 mtime=-70000000000\n"), ("a", b'0', "", b"1")]), "RFC 3339"),
        (b"this is no tar".repeat(100), "malformed number"),
        (b"short".to_vec(), "middle of a header"),
    ] {
        let mut layer = Vec::new();
        let written = write_chunked(&tar[..], &mut layer, Some(3)).unwrap();
        assert!(written.table.unwrap_err().contains(why), "{why}");
        assert_eq!(written.plain, Digest::of(&tar));
        assert_eq!(zstd::decode_all(&layer[..]).unwrap(), tar);
    }
    let mut layer = Vec::new();
    assert!(write_chunked(&b""[..], &mut layer, None).unwrap().table.is_ok());
}
