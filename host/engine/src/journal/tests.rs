use super::{tags::FRESH, *};
use dray_core::{Descriptor, Summary};
use std::collections::HashMap;

fn at(repository: &str) -> RepositoryKey {
    RepositoryKey { place: "docker:r".into(), repository: repository.into() }
}

#[test]
fn what_was_learnt_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/journal.db");
    let of = Conversion { source: "s".into(), form: "f".into(), place: "p".into() };
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let [first, second] = [&one, &two].map(|digest| Descriptor::new("m", digest.clone(), 7));
    let journal = Journal::open(&path).unwrap();
    assert_eq!(
        (journal.converted(&of), journal.tag(&at("a"), "1"), journal.tags(&at("a")).len()),
        (None, None, 0)
    );
    journal.convert(of.clone(), "digest".into());
    let before = SeenTag::now(&first, "");
    journal.saw_tag(&at("a"), "1", before.clone(), None);
    journal.saw_tag(&at("a"), "1", SeenTag::now(&second, "parts"), Some(&before));
    journal.holds(at("a"), &one);
    journal.holds(at("b"), &one);
    journal.uploading(at("a"), &two, Some(vec![1, 2]));
    drop(journal);

    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.converted(&of).as_deref(), Some("digest"));
    let seen = journal.tag(&at("a"), "1").unwrap();
    assert_eq!((&seen.named, &*seen.parts), (&second, "parts"));
    assert!(!seen.is_news(&second, "parts") && seen.is_news(&second, "") && seen.is_news(&first, "parts"));
    for at in [seen.at - FRESH, seen.at + FRESH] {
        let seen = SeenTag { at, ..seen.clone() };
        assert!(!seen.is_fresh() && seen.is_news(&second, "parts"));
    }
    assert_eq!((journal.tags(&at("a")).len(), journal.tags(&at("b")).len()), (1, 0));
    // This repository is preferred to any other one.
    assert_eq!(journal.holder(&at("b"), &one).as_deref(), Some("b"));
    assert!(journal.holder(&at("c"), &one).is_some());
    assert_eq!(journal.holder(&at("a"), &two), None);
    let elsewhere = RepositoryKey { place: "docker:other".into(), repository: "a".into() };
    assert_eq!(journal.holder(&elsewhere, &one), None);
    // The process that began the upload has ended.
    assert_eq!(journal.upload(&at("a"), &two), Some(vec![1, 2]));
    // The second process that asks for the upload of a dead process does not get it.
    assert_eq!(Journal::open(&path).unwrap().upload(&at("a"), &two), None);
    let rows = || {
        let connection = Connection::open(&path).unwrap();
        connection.query_row("select count(*) from upload", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    // An upload that another process has taken over is not removed by this one.
    let owner = |life: i64| {
        Connection::open(&path).unwrap().execute("update upload set life = ?1", [life]).unwrap();
    };
    for (life, left) in [(1, 1), (journal.life(), 0)] {
        owner(life);
        journal.uploading(at("a"), &two, None);
        journal.writer.flush();
        assert_eq!(rows(), left);
    }
}

#[test]
fn runs_are_listed_and_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let first = journal.begin("sync", Some("policy.toml")).unwrap();
    let second = journal.begin("copy", None).unwrap();
    journal.end(first, &Summary::default(), false).unwrap();
    let runs =
        || journal.runs(10).unwrap().into_iter().map(|run| (run.command, run.ended.is_some(), run.under_way));
    assert!(runs().eq([("copy".into(), false, true), ("sync".into(), true, false)]));
    assert_eq!(journal.run(first).unwrap().unwrap().summary, Some(Default::default()));
    assert!(journal.run(99).unwrap().is_none());
    journal.holds(at("a"), &Digest::of(b"1"));
    journal.writer.flush();
    assert_eq!(journal.trim(Duration::from_secs(3600)).unwrap().facts, 0);
    // A run that is under way stays. A later process with another lock number does not count as the process of that
    // run.
    let trimmed = journal.trim(Duration::ZERO).unwrap();
    assert_eq!((trimmed.facts, trimmed.runs, journal.usage().unwrap().repositories), (1, 1, 0));
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    assert_eq!(other.execute("update run set life = life - 1 where id = ?1", [second]).unwrap(), 1);
    assert!(runs().eq([("copy".into(), false, false)]));
    assert_eq!(journal.trim(Duration::ZERO).unwrap().runs, 1);
}

#[test]
fn two_drays_share_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let journal = Journal::open(path).unwrap();
                let named = Descriptor::new("m", Digest::of(b"1"), 1);
                for number in 0..500 {
                    let seen = SeenTag::now(&named, "");
                    journal.saw_tag(&at(&format!("r{writer}")), &number.to_string(), seen, None);
                }
            });
        }
    });
    assert_eq!(Journal::open(&path).unwrap().usage().unwrap().tags, 2000);
}

fn image(content: &[u8]) -> Descriptor {
    Descriptor::new("m", Digest::of(content), 1)
}

#[tokio::test]
async fn a_tag_that_is_being_written_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (one, two) = (SeenTag::now(&image(b"1"), ""), SeenTag::now(&image(b"2"), ""));
    let journal = Journal::open(&path).unwrap();
    let writing = journal.writes_tag(&at("a"), "1").await.unwrap();
    journal.wrote_tag(&at("a"), "1", one.clone(), writing, at("source"));
    journal.flush();
    assert_eq!(journal.tag(&at("a"), "1"), Some(one.clone()));
    // A process that dies during a write leaves no record that could be trusted.
    journal.writes_tag(&at("a"), "1").await.unwrap();
    let later = Journal::open(&path).unwrap();
    assert_eq!((later.tag(&at("a"), "1"), later.tags(&at("a")).len()), (None, 0));
    // What was seen before or during the write says nothing about what the write leaves.
    for before in [Some(&one), None] {
        journal.saw_tag(&at("a"), "1", one.clone(), before);
    }
    journal.flush();
    assert_eq!(journal.tag(&at("a"), "1"), None);
    // What is seen long after the write began is recorded.
    Connection::open(&path).unwrap().execute("update tag set at = at - ?1", [FRESH]).unwrap();
    journal.saw_tag(&at("a"), "1", two.clone(), None);
    journal.flush();
    assert_eq!(journal.tag(&at("a"), "1"), Some(two));
}

#[tokio::test]
async fn two_that_write_a_tag_at_once_do_not_know_whose_write_was_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (one, two) = (SeenTag::now(&image(b"1"), ""), SeenTag::now(&image(b"2"), ""));
    let (first, second) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
    for both_end in [true, false] {
        let writings =
            (first.writes_tag(&at("a"), "1").await.unwrap(), second.writes_tag(&at("a"), "1").await.unwrap());
        second.wrote_tag(&at("a"), "1", two.clone(), writings.1, at("source"));
        second.flush();
        if both_end {
            first.wrote_tag(&at("a"), "1", one.clone(), writings.0, at("source"));
            first.flush();
        }
        assert_eq!(first.tag(&at("a"), "1"), None);
    }
    // A process that saw the tag before another process wrote it does not overwrite the record of that write.
    first.saw_tag(&at("a"), "2", one.clone(), None);
    first.flush();
    let writing = second.writes_tag(&at("a"), "2").await.unwrap();
    second.wrote_tag(&at("a"), "2", two.clone(), writing, at("source"));
    second.flush();
    first.saw_tag(&at("a"), "2", one.clone(), Some(&one));
    first.flush();
    assert_eq!(first.tag(&at("a"), "2"), Some(two));
}

#[tokio::test]
async fn a_write_that_outlasts_its_hour_leaves_nothing_that_could_be_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (one, two) = (SeenTag::now(&image(b"1"), ""), SeenTag::now(&image(b"2"), ""));
    let (journal, slow) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
    let other = Connection::open(&path).unwrap();
    for written in [false, true] {
        let writing = slow.writes_tag(&at("a"), "1").await.unwrap();
        other.execute("update tag set at = at - ?1", [FRESH]).unwrap();
        // Another process sees or writes the tag before the slow write ends.
        match written {
            true => {
                let writing = journal.writes_tag(&at("a"), "1").await.unwrap();
                journal.wrote_tag(&at("a"), "1", one.clone(), writing, at("source"));
            }
            false => journal.saw_tag(&at("a"), "1", one.clone(), None),
        }
        journal.flush();
        assert_eq!(journal.tag(&at("a"), "1"), Some(one.clone()));
        slow.wrote_tag(&at("a"), "1", two.clone(), writing, at("source"));
        slow.flush();
        assert_eq!(journal.tag(&at("a"), "1"), None);
        other.execute("delete from tag", []).unwrap();
    }
    // An answer that is as old as `FRESH` is not recorded.
    let asked = now() - FRESH;
    slow.writes_tag(&at("a"), "1").await.unwrap();
    other.execute("update tag set at = at - ?1", [FRESH - 60]).unwrap();
    journal.saw_tag(&at("a"), "1", SeenTag::at(asked, &image(b"1"), ""), None);
    journal.flush();
    assert_eq!(journal.tag(&at("a"), "1"), None);
}

#[tokio::test]
async fn trimming_beside_a_run_leaves_no_room_for_what_it_saw_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (running, other) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
    let run = running.begin("sync", None).unwrap();
    let saw = SeenTag::now(&image(b"1"), "");
    let writing = other.writes_tag(&at("a"), "1").await.unwrap();
    other.wrote_tag(&at("a"), "1", SeenTag::now(&image(b"2"), ""), writing, at("source"));
    other.flush();
    assert_eq!(other.trim(Duration::ZERO).unwrap().facts, 1);
    running.saw_tag(&at("a"), "1", saw.clone(), None);
    running.flush();
    assert_eq!(running.tag(&at("a"), "1"), None);
    // If no run is under way, the row is removed.
    running.end(run, &Summary::default(), false).unwrap();
    other.saw_tag(&at("b"), "1", saw, None);
    other.flush();
    other.trim(Duration::ZERO).unwrap();
    assert_eq!((other.usage().unwrap().tags, other.tags(&at("b")).len()), (1, 0));
}

#[tokio::test]
async fn trimming_beside_a_run_mixes_no_repositories_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let seen = SeenTag::now(&image(b"1"), "");
    let (running, trimming) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
    let run = running.begin("sync", None).unwrap();
    running.saw_tag(&at("a"), "1", seen.clone(), None);
    let writing = running.writes_tag(&at("c"), "1").await.unwrap();
    assert_eq!(trimming.trim(Duration::ZERO).unwrap().facts, 1);
    // Another repository could get the number of the removed one.
    trimming.saw_tag(&at("b"), "1", seen.clone(), None);
    trimming.flush();
    running.saw_tag(&at("a"), "2", seen.clone(), None);
    running.wrote_tag(&at("c"), "1", seen.clone(), writing, at("source"));
    running.flush();
    let tags = |name: &str| running.tags(&at(name)).into_keys().collect::<Vec<_>>();
    assert_eq!((tags("a"), tags("b"), tags("c")), (vec!["2".into()], vec!["1".into()], vec!["1".into()]));
    running.end(run, &Summary::default(), false).unwrap();
    assert_eq!(running.runs(9).unwrap().len(), 1);
}

#[test]
fn a_journal_that_another_process_keeps_for_long_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("begin immediate").unwrap();
    journal.holds(at("a"), &Digest::of(b"1"));
    // This is longer than SQLite waits by itself.
    std::thread::sleep(PATIENCE + Duration::from_secs(1));
    other.execute_batch("commit").unwrap();
    journal.flush();
    assert_eq!(journal.holder(&at("a"), &Digest::of(b"1")).as_deref(), Some("a"));
}

#[test]
fn a_journal_of_an_earlier_dray_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(MIGRATIONS[0]).unwrap();
    old.execute_batch("insert into conversion values ('s', 'f', 'p', 'r'); pragma user_version = 1").unwrap();
    drop(old);
    let of = Conversion { source: "s".into(), form: "f".into(), place: "p".into() };
    assert_eq!(Journal::open(&path).unwrap().converted(&of).as_deref(), Some("r"));
}

#[test]
fn a_journal_of_the_future_or_a_broken_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    drop(Journal::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Journal::open(&path).err().unwrap();
    assert!(error.text.contains("later dray"), "{error}");
    std::fs::write(&path, "no database at all, but some text that is long enough").unwrap();
    assert!(Journal::open(&path).err().unwrap().help.is_some());
}

#[test]
fn nobody_else_reads_the_journal() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("journal.db");
    // An earlier version of dray created the file with this mode.
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let journal = Journal::open(&path).unwrap();
    journal.holds(at("a"), &Digest::of(b"1"));
    let modes = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o077));
    for (name, mode) in modes.filter(|(name, _)| name.to_string_lossy().starts_with("journal")) {
        assert_eq!(mode, 0, "{name:?}");
    }
}

#[tokio::test]
async fn what_dray_wrote_is_known_by_its_source_until_somebody_else_writes_there() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let (one, two) = (SeenTag::now(&image(b"1"), ""), SeenTag::now(&image(b"2"), ""));
    for (tag, source) in [("1", "here"), ("2", "here"), ("3", "there")] {
        let writing = journal.writes_tag(&at("a"), tag).await.unwrap();
        journal.wrote_tag(&at("a"), tag, one.clone(), writing, at(source));
    }
    // A tag that was only seen was not written.
    journal.saw_tag(&at("a"), "4", one.clone(), None);
    // Seeing it again changes nothing, and seeing something else means that somebody else wrote it.
    journal.flush();
    let before = journal.tag(&at("a"), "1");
    journal.saw_tag(&at("a"), "1", one.clone(), before.as_ref());
    let before = journal.tag(&at("a"), "2");
    journal.saw_tag(&at("a"), "2", two, before.as_ref());
    journal.flush();
    let copied = |from| journal.copied_from(&at("a"), &at(from));
    assert_eq!(copied("here"), HashMap::from([("1".to_owned(), one.named.digest.clone())]));
    assert_eq!(copied("there").into_keys().collect::<Vec<_>>(), ["3"]);
    assert_eq!(copied("elsewhere"), HashMap::new());
    let mut sources = journal.copied_repositories(&at("a").place);
    sources.sort();
    assert_eq!(sources, ["here", "there"]);
    // A tag that is being written may name anything.
    journal.writes_tag(&at("a"), "1").await.unwrap();
    assert_eq!(copied("here"), HashMap::new());

    assert_eq!(journal.listed(&at("here")), None);
    journal.saw_listed(at("here"), 12);
    let change = |reference: &str, after| TagChanged {
        reference: reference.into(),
        before: one.named.digest.clone(),
        after,
    };
    let run = journal.begin("sync", None).unwrap();
    journal.changes_tag(run, change("docker://r/a:1", Some(image(b"2").digest)));
    journal.changes_tag(run, change("docker://r/a:2", None));
    journal.flush();
    assert_eq!(journal.listed(&at("here")), Some(12));
    let changes = journal.changes(run).unwrap();
    assert_eq!(changes, [change("docker://r/a:2", None), change("docker://r/a:1", Some(image(b"2").digest))]);
    assert_eq!(journal.changes(run + 1).unwrap(), []);
    // What is still of use stays when old facts are removed.
    journal.end(run, &Summary::default(), false).unwrap();
    journal.trim(Duration::ZERO).unwrap();
    assert_eq!((journal.listed(&at("here")), journal.changes(run).unwrap()), (Some(12), Vec::new()));
}
