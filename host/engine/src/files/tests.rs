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
    // What a plugin may make leads it nowhere.
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
    // Of a move whose source is gone, nothing is done.
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
    // A process that is killed now leaves nothing: it has no name.
    assert_eq!(root.entries("blobs").unwrap(), []);
    writer.keep().await.unwrap();
    assert_eq!(root.stat("blobs/a").unwrap(), Some(2));
    put(&root, "blobs/a", None, b"again").await;
    assert_eq!(root.read("blobs/a", 0, None).unwrap(), b"again");
    // A file system that keeps none without a name gives it one of its own.
    let dir = cap_std::fs::Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
    let named = Fresh::named(Arc::new(dir), std::path::Path::new("blobs/c")).unwrap();
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
    // Written twice, it is there once.
    put(&root, "sized", None, b"ab").await;
    root.remove(&["unsized".into()]).unwrap();
    seal(&root).await.unwrap();
    assert_eq!(root.read("sized", 0, None).unwrap(), b"ab");
    assert_eq!(root.read("folder/document", 0, None).unwrap(), b"{}");
    assert_eq!(root.stat("unsized").unwrap(), None);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a.tar"]);

    // What tar reads is the judge.
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
