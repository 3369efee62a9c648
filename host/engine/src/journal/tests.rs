use super::*;
use dray_core::Report;

fn at(repository: &str) -> At {
    At { place: "docker:r".into(), repository: repository.into() }
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
    journal.saw_tag(&at("a"), "1", &first, "", None);
    journal.saw_tag(&at("a"), "1", &second, "parts", None);
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
        let seen = Seen { at, ..seen.clone() };
        assert!(!seen.is_fresh() && seen.is_news(&second, "parts"));
    }
    let older = Seen { at: seen.at - 60, ..seen.clone() };
    journal.saw_tag(&at("a"), "unchanged", &second, "other parts", Some(&older));
    journal.flush();
    assert_eq!(journal.tag(&at("a"), "unchanged").unwrap().at, older.at);
    assert_eq!((journal.tags(&at("a")).len(), journal.tags(&at("b")).len()), (2, 0));
    // Nearest first: this repository, and then any other.
    assert_eq!(journal.holder(&at("b"), &one).as_deref(), Some("b"));
    assert!(journal.holder(&at("c"), &one).is_some());
    assert_eq!(journal.holder(&at("a"), &two), None);
    let elsewhere = At { place: "docker:other".into(), repository: "a".into() };
    assert_eq!(journal.holder(&elsewhere, &one), None);
    assert_eq!(journal.upload(&at("a"), &two), Some(vec![1, 2]));
    journal.uploading(at("a"), &two, None);
    journal.writer.flush();
    assert_eq!(journal.upload(&at("a"), &two), None);
}

#[test]
fn runs_are_listed_and_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let first = journal.begin("sync", Some("policy.toml")).unwrap();
    journal.begin("copy", None).unwrap();
    journal.end(first, &Report::default()).unwrap();
    let runs = journal.runs(10).unwrap();
    assert_eq!(
        runs.iter().map(|run| (&*run.command, run.ended.is_some())).collect::<Vec<_>>(),
        [("copy", false), ("sync", true)]
    );
    assert_eq!(journal.run(first).unwrap().unwrap().0.summary, Some(Default::default()));
    assert!(journal.run(99).unwrap().is_none());
    journal.holds(at("a"), &Digest::of(b"1"));
    journal.writer.flush();
    assert_eq!(journal.trim(Duration::from_secs(3600)).unwrap().facts, 0);
    let trimmed = journal.trim(Duration::ZERO).unwrap();
    assert_eq!((trimmed.facts, trimmed.runs, journal.usage().unwrap().repositories), (1, 2, 0));
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
                    journal.saw_tag(&at(&format!("r{writer}")), &number.to_string(), &named, "", None);
                }
            });
        }
    });
    assert_eq!(Journal::open(&path).unwrap().usage().unwrap().tags, 2000);
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
