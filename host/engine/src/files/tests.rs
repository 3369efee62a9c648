use super::*;

#[test]
fn replaces_only_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let roots = [
        Root::folder(folder.path().join("new")),
        Root::archive(folder.path().join("new.tar"), folder.path()),
        Root::temporary(folder.path()),
    ];
    for root in roots {
        assert!(root.replace("a/index.json", None, b"1").unwrap());
        assert!(!root.replace("a/index.json", None, b"2").unwrap());
        assert!(root.replace("a/index.json", Some(b"1"), b"2").unwrap());
        assert_eq!(root.read("a/index.json", 0, None).unwrap(), b"2");
        let entry = Entry { name: "index.json".into(), size: 1, directory: false };
        assert_eq!(root.entries("a").unwrap(), [entry]);
        root.remove(&["a/index.json".into(), "none".into()]).unwrap();
        assert_eq!(root.stat("a/index.json").unwrap(), None);
    }
}

#[tokio::test]
async fn nothing_outside_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "s").unwrap();
    std::fs::create_dir(folder.path().join("root")).unwrap();
    std::os::unix::fs::symlink("../secret", folder.path().join("root/link")).unwrap();
    let root = Arc::new(Root::folder(folder.path().join("root")));
    for path in ["../secret", "link", "/etc/passwd"] {
        assert!(root.read(path, 0, None).is_err(), "{path}");
        assert!(root.stream(path, 0, None).await.is_err(), "{path}");
    }
    for path in ["../new", "/tmp/dray-outside"] {
        assert!(root.replace(path, None, b"").is_err(), "{path}");
        assert!(root.writer(path, None).await.is_err(), "{path}");
    }
}

#[test]
fn changes_and_layers_stay_inside() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::folder(folder.path().join("root"));
    assert!(root.commit(&["locks/one".into()], &[Change::Folder("a".into())]).unwrap());
    assert_eq!(root.read("locks/one", 0, None).unwrap().len(), 64);
    // A symbolic link that a plugin may create must not lead to a lock outside the folder.
    assert!(root.commit(&[], &[Change::Symlink("out".into(), "..".into())]).unwrap());
    for lock in ["../lock", "out/lock", "/tmp/dray-lock"] {
        assert!(root.commit(&[lock.into()], &[]).is_err(), "{lock}");
    }
    for change in [
        Change::Folder("../b".into()),
        Change::Remove("out/root/a".into()),
        Change::Symlink("../link".into(), "x".into()),
        Change::Replace { path: "out/file".into(), expected: None, content: vec![1] },
    ] {
        assert!(root.commit(&[], std::slice::from_ref(&change)).is_err(), "{change:?}");
    }
    let tar = vec![0; 1024];
    for path in ["../layer", "out/layer", "/tmp/dray-layer", ".."] {
        assert!(root.unpack(path, &mut &tar[..]).is_err(), "{path}");
    }
    assert!(root.unpack("deep/down/layer", &mut &tar[..]).unwrap().keep().is_ok());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["root"]);
    assert!(root.read("deep/down/layer/tar-split.gz", 0, None).is_ok());
    // If the source of a move does not exist, no change of the commit is made.
    let changes = [Change::Folder("c".into()), Change::Move("gone".into(), "d".into())];
    assert!(!root.commit(&[], &changes).unwrap());
    assert_eq!(root.entries("c").unwrap(), []);
    assert!(!root.entries("").unwrap().iter().any(|entry| entry.name == "c"));
}

#[tokio::test]
async fn a_file_appears_when_it_is_whole_and_leaves_nothing_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::folder(folder.path());
    let writer = root.writer("blobs/a", None).await.unwrap();
    assert!(writer.write(Bytes::from_static(b"12")).await);
    assert_eq!(root.stat("blobs/a").unwrap(), None);
    // The file has no name yet, so nothing is left if the process is killed now.
    assert_eq!(root.entries("blobs").unwrap(), []);
    writer.keep().await.unwrap();
    assert_eq!(root.stat("blobs/a").unwrap(), Some(2));
    put(&root, "blobs/a", None, b"again").await;
    assert_eq!(root.read("blobs/a", 0, None).unwrap(), b"again");
    // A file system without unnamed files gives the file a temporary name.
    let dir = cap_std::fs::Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
    let blobs = dir.open_dir("blobs").unwrap();
    let named = AtomicFile::named(Arc::new(dir), blobs, "c".into()).unwrap();
    assert_eq!(root.entries("blobs").unwrap().len(), 2);
    named.keep().unwrap();
    assert_eq!(root.stat("blobs/c").unwrap(), Some(0));
    root.remove(&["blobs/c".into()]).unwrap();
    let writer = root.writer("blobs/b", None).await.unwrap();
    writer.write(Bytes::from_static(b"12")).await;
    writer.broken().await;
    assert_eq!(root.entries("blobs").unwrap().len(), 1);
}

async fn seal(root: &Arc<Root>) -> Result<()> {
    let root = root.clone();
    tokio::task::spawn_blocking(move || root.seal()).await.unwrap()
}

async fn put(root: &Root, path: &str, size: Option<u64>, content: &'static [u8]) {
    let writer = root.writer(path, size).await.unwrap();
    assert!(writer.write(Bytes::from_static(content)).await);
    writer.keep().await.unwrap();
}

#[tokio::test]
async fn an_archive_appears_when_it_is_sealed_and_keeps_what_was_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let root = Arc::new(Root::archive(&path, folder.path()));
    put(&root, "sized", Some(3), b"123").await;
    put(&root, "unsized", None, b"12345").await;
    let given_up = root.writer("given-up", Some(1000)).await.unwrap();
    given_up.write(Bytes::from_static(b"x")).await;
    given_up.broken().await;
    root.replace("folder/document", None, b"{}").unwrap();
    assert!(!path.exists());
    assert_eq!(root.read("unsized", 1, Some(2)).unwrap(), b"23");
    seal(&root).await.unwrap();

    let root = Arc::new(Root::archive(&path, folder.path()));
    let names = |path| root.entries(path).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(""), ["folder", "sized", "unsized"]);
    assert!(path.metadata().unwrap().len() < 6 * 1024);
    put(&root, "sized", Some(2), b"ab").await;
    // A member that is written twice appears once.
    put(&root, "sized", None, b"ab").await;
    root.remove(&["unsized".into()]).unwrap();
    seal(&root).await.unwrap();
    assert_eq!(root.read("sized", 0, None).unwrap(), b"ab");
    assert_eq!(root.read("folder/document", 0, None).unwrap(), b"{}");
    assert_eq!(root.stat("unsized").unwrap(), None);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a.tar"]);

    // tar must be able to list the archive.
    let listed = std::process::Command::new("tar").arg("tf").arg(&path).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "sized\nfolder/document\n");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[tokio::test]
async fn of_two_writers_of_an_archive_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let open = || Arc::new(Root::archive(&path, folder.path()));
    let (one, other) = (open(), open());
    for root in [&one, &other] {
        root.replace("document", None, b"{}").unwrap();
    }
    seal(&one).await.unwrap();
    assert!(seal(&other).await.unwrap_err().text.contains("somebody else wrote it"));
    drop(other);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn compressed_archives_and_archives_within_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let tar = |arguments: &[&str]| {
        let done = std::process::Command::new("tar").current_dir(folder.path()).args(arguments).status();
        assert!(done.unwrap().success());
    };
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(folder.path().join("in/file"), "content").unwrap();
    tar(&["czf", "inner.tar.gz", "in"]);
    tar(&["cf", "plain.tar", "inner.tar.gz"]);
    tar(&["czf", "outer.tgz", "./inner.tar.gz"]);
    for name in ["plain.tar", "outer.tgz"] {
        let root = Root::archive(folder.path().join(name), folder.path());
        assert_eq!(root.read("inner.tar.gz/in/file", 2, Some(3)).unwrap(), b"nte");
        assert_eq!(root.entries("inner.tar.gz").unwrap()[0].name, "in");
        assert_eq!(root.stat("inner.tar.gz/none").unwrap(), None);
        let (digest, size) = root.digest("inner.tar.gz/in/file", true).unwrap();
        assert_eq!((digest, size), (Digest::of(b"content"), 7));
    }
}

#[test]
fn damaged_archives_are_said_to_be_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    for content in [b"no archive at all".as_slice(), &[1; 1024], &[0x1f, 0x8b, 8, 0, 0]] {
        std::fs::write(&path, content).unwrap();
        let root = Root::archive(&path, folder.path());
        let error = root.read("manifest.json", 0, None).unwrap_err();
        assert!(error.text.starts_with(&format!("read {}: ", path.display())), "{error}");
        assert!(root.replace("x", None, b"").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    assert!(Root::archive(folder.path(), folder.path()).stat("x").is_err());
}

fn content(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn descriptor(content: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(content), content.len() as u64)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_came_of_a_large_file_is_taken_up_by_who_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let content = content(20 << 20);
    let blob = descriptor(&content);
    let root = Root::folder(folder.path());
    let (writer, there, _) = root.take_up("a/blob", &blob).await.unwrap();
    assert_eq!(there, 0);
    assert!(writer.write(Bytes::copy_from_slice(&content[..3_000_001])).await);

    // While one process writes the partial file, another one begins a file of its own, and leaves no partial file.
    let (other, there, _) = root.take_up("a/blob", &blob).await.unwrap();
    assert_eq!(there, 0);
    assert!(other.write(Bytes::copy_from_slice(&content)).await);
    other.keep().await.unwrap();
    assert_eq!(names(&folder.path().join("a")), [".dray-blob.part", "blob"]);
    writer.broken().await;

    let (writer, there, mut hasher) = root.take_up("a/blob", &blob).await.unwrap();
    assert_eq!(there, 3_000_001);
    hasher.update(&content[3_000_001..]);
    assert_eq!(hasher.finish(), blob.digest);
    assert!(writer.write(Bytes::copy_from_slice(&content[3_000_001..])).await);
    writer.keep().await.unwrap();
    assert_eq!(names(&folder.path().join("a")), ["blob"]);
    assert!(root.digest("a/blob", false).unwrap() == (blob.digest.clone(), blob.size));

    // If the name of a partial file is removed and another writer takes it, each writer makes a file of what it wrote
    // itself.
    let (writer, ..) = root.take_up("a/other", &blob).await.unwrap();
    std::fs::remove_file(folder.path().join("a/.dray-other.part")).unwrap();
    let (second, there, _) = root.take_up("a/other", &blob).await.unwrap();
    assert_eq!(there, 0);
    assert!(second.write(Bytes::copy_from_slice(&content[..100])).await);
    assert!(writer.write(Bytes::copy_from_slice(&content)).await);
    writer.keep().await.unwrap();
    assert!(root.digest("a/other", false).unwrap() == (blob.digest.clone(), blob.size));
    assert_eq!(names(&folder.path().join("a")), [".dray-other.part", "blob", "other"]);
    second.discard().await;
    root.remove(&["a/other".into()]).unwrap();

    // Wrong content does not stay.
    let (writer, ..) = root.take_up("a/blob", &blob).await.unwrap();
    assert!(writer.write(Bytes::from_static(b"wrong")).await);
    writer.discard().await;
    assert_eq!(names(&folder.path().join("a")), ["blob"]);
    let (writer, ..) = root.take_up("a/small", &descriptor(b"small")).await.unwrap();
    assert_eq!(names(&folder.path().join("a")), ["blob"], "a small file has a name too early");
    drop(writer);
}

#[tokio::test]
async fn a_part_is_trusted_only_if_it_can_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let content = content(20 << 20);
    let blob = descriptor(&content);
    let root = Root::folder(folder.path());
    let part = folder.path().join(".dray-blob.part");
    // The partial file is longer than the whole file.
    std::fs::write(&part, vec![1; content.len() + 1]).unwrap();
    let (writer, there, _) = root.take_up("blob", &blob).await.unwrap();
    assert_eq!(there, 0);
    writer.discard().await;
    // The partial file is a link to another file, which must not be written to.
    let other = folder.path().join("other");
    std::fs::write(&other, "other").unwrap();
    for symbolic in [true, false] {
        match symbolic {
            true => std::os::unix::fs::symlink(&other, &part).unwrap(),
            false => std::fs::hard_link(&other, &part).unwrap(),
        }
        let (writer, there, _) = root.take_up("blob", &blob).await.unwrap();
        assert_eq!(there, 0);
        assert!(writer.write(Bytes::copy_from_slice(&content)).await);
        writer.keep().await.unwrap();
        assert_eq!(std::fs::read(&other).unwrap(), b"other");
        std::fs::remove_file(&part).unwrap();
    }
    // The partial file belongs to another user, who may still have it open. Only root can change the owner of a file.
    std::fs::write(&part, &content[..1000]).unwrap();
    if std::os::unix::fs::chown(&part, Some(65_534), None).is_ok() {
        let (writer, there, _) = root.take_up("blob", &blob).await.unwrap();
        assert_eq!(there, 0);
        writer.discard().await;
    }
    std::fs::remove_file(&part).unwrap();
    // Partial files that nobody resumed are removed after a week.
    for (name, days) in [(".dray-old.part", 8), (".dray-new.part", 6), ("old.part", 8)] {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400))
            .unwrap();
    }
    let (writer, ..) = Root::folder(folder.path()).take_up("blob", &blob).await.unwrap();
    writer.discard().await;
    assert_eq!(names(folder.path()), [".dray-new.part", "blob", "old.part", "other"]);
}

#[tokio::test]
async fn an_archive_goes_on_with_the_members_that_a_dead_process_began() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let (one, two, three) = (content(18 << 20), content(9 << 20), content(6 << 20));
    let (first, second, third) = (descriptor(&one), descriptor(&two), descriptor(&three));
    let root = Root::archive(&path, folder.path());
    let (writer, ..) = root.take_up("one", &first).await.unwrap();
    let (other, ..) = root.take_up("two", &second).await.unwrap();
    assert!(writer.write(Bytes::copy_from_slice(&one)).await);
    assert!(other.write(Bytes::copy_from_slice(&two[..5 << 20])).await);
    writer.keep().await.unwrap();
    other.broken().await;
    // No byte of this member was written.
    let (nothing, ..) = root.take_up("three", &third).await.unwrap();
    nothing.broken().await;
    drop(root);
    assert_eq!(names(folder.path()), [".dray-a.tar.part"]);

    let root = Arc::new(Root::archive(&path, folder.path()));
    root.replace("document", None, b"{}").unwrap();
    for (name, content, blob, least) in
        [("two", &two, &second, 1 << 20), ("one", &one, &first, 18 << 20), ("three", &three, &third, 0)]
    {
        let (writer, there, mut hasher) = root.take_up(name, blob).await.unwrap();
        assert!(there >= least && there <= blob.size, "{name}: {there}");
        hasher.update(&content[there as usize..]);
        assert_eq!(hasher.finish(), blob.digest, "{name}");
        assert!(writer.write(Bytes::copy_from_slice(&content[there as usize..])).await);
        writer.keep().await.unwrap();
    }
    seal(&root).await.unwrap();
    assert_eq!(names(folder.path()), ["a.tar"]);
    let calm = Arc::new(Root::archive(folder.path().join("calm.tar"), folder.path()));
    calm.replace("document", None, b"{}").unwrap();
    for (name, content, blob) in [("one", &one, &first), ("two", &two, &second), ("three", &three, &third)] {
        let (writer, ..) = calm.take_up(name, blob).await.unwrap();
        assert!(writer.write(Bytes::copy_from_slice(content)).await);
        writer.keep().await.unwrap();
    }
    seal(&calm).await.unwrap();
    // The archive is the same, byte for byte, as after a run that was not interrupted.
    assert!(std::fs::read(&path).unwrap() == std::fs::read(folder.path().join("calm.tar")).unwrap());
}

#[tokio::test]
async fn an_archive_leaves_out_what_was_begun_and_is_wanted_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let (one, two) = (content(20 << 20), content(1 << 20));
    let root = Root::archive(&path, folder.path());
    let (writer, ..) = root.take_up("one", &descriptor(&one)).await.unwrap();
    assert!(writer.write(Bytes::copy_from_slice(&one)).await);
    writer.keep().await.unwrap();
    drop(root);
    assert_eq!(names(folder.path()), [".dray-a.tar.part"]);
    let root = Arc::new(Root::archive(&path, folder.path()));
    let (writer, ..) = root.take_up("two", &descriptor(&two)).await.unwrap();
    assert!(writer.write(Bytes::copy_from_slice(&two)).await);
    writer.keep().await.unwrap();
    seal(&root).await.unwrap();
    assert_eq!(names(folder.path()), ["a.tar"]);
    let listed = std::process::Command::new("tar").arg("tvf").arg(&path).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().count() == 1 && listed.contains("two"), "{listed}");
    assert!(path.metadata().unwrap().len() < 2 << 20);
}

#[tokio::test]
async fn a_member_that_is_wrong_gives_its_place_to_the_next_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let (one, two) = (content(20 << 20), content(1 << 20));
    let (first, second) = (descriptor(&one), descriptor(&two));
    let root = Root::archive(&path, folder.path());
    let (writer, ..) = root.take_up("one", &first).await.unwrap();
    assert!(writer.write(vec![7; 9 << 20].into()).await);
    writer.discard().await;
    // A member that was interrupted in this process is resumed at the exact byte.
    let (writer, there, _) = root.take_up("one", &first).await.unwrap();
    assert_eq!(there, 0);
    assert!(writer.write(Bytes::copy_from_slice(&one[..12_345_678])).await);
    writer.broken().await;
    let (writer, there, _) = root.take_up("one", &first).await.unwrap();
    assert_eq!(there, 12_345_678);
    assert!(writer.write(Bytes::copy_from_slice(&one[12_345_678..])).await);
    writer.keep().await.unwrap();
    let root = Arc::new(root);
    put(&root, "unsized", None, &[5; 4096]).await;
    let given_up = root.writer("given-up", None).await.unwrap();
    given_up.write(Bytes::from_static(&[6; 4096])).await;
    given_up.broken().await;
    put(&root, "small", Some(3), b"abc").await;
    // Another process writes the archive in the meantime. The next run uses what was written.
    std::fs::write(&path, [0; 1024]).unwrap();
    assert!(seal(&root).await.unwrap_err().text.contains("run it again"));
    assert_eq!(names(folder.path()), [".dray-a.tar.part", "a.tar"]);
    let root = Arc::new(Root::archive(&path, folder.path()));
    let (writer, there, _) = root.take_up("one", &first).await.unwrap();
    assert_eq!(there, first.size);
    writer.keep().await.unwrap();
    let (writer, ..) = root.take_up("two", &second).await.unwrap();
    assert!(writer.write(Bytes::copy_from_slice(&two)).await);
    writer.keep().await.unwrap();
    seal(&root).await.unwrap();
    assert_eq!(names(folder.path()), ["a.tar"]);
    for (name, blob) in [("one", &first), ("two", &second)] {
        assert!(root.digest(name, false).unwrap() == (blob.digest.clone(), blob.size), "{name}");
    }
}

#[test]
fn changes_stay_beneath_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::folder(folder.path().join("root"));
    assert!(root.replace("kept", None, b"1").unwrap());
    for path in ["", ".", "..", "/", "a/../..", "./"] {
        for change in [
            Change::Remove(path.into()),
            Change::Move("kept".into(), path.into()),
            Change::Move(path.into(), "new".into()),
            Change::Folder(path.into()),
        ] {
            let error = root.commit(&[], &[change]).unwrap_err();
            assert_eq!(error.kind, Kind::Denied, "{path}");
        }
        assert!(root.commit(&[path.into()], &[]).is_err(), "{path}");
    }
    assert_eq!(root.read("kept", 0, None).unwrap(), b"1");
}

#[tokio::test]
async fn a_fifo_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let root = Arc::new(Root::folder(folder.path()));
    assert!(root.read("pipe", 0, None).is_err());
    assert!(root.stream("pipe", 0, None).await.is_err());
    assert!(root.replace("pipe", None, b"x").is_err());
    assert!(root.digest("pipe", false).is_err());
}

#[test]
fn a_new_store_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let store = folder.path().join("store");
    Root::store(&store).replace("x", None, b"").unwrap();
    assert_eq!(mode(&store), 0o700);
}
