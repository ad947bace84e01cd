use super::*;

fn note(path: &str, what: What) -> Note {
    Note {
        path: RelPath::new(path).unwrap(),
        what,
        kind: Kind::File,
        size: 7,
        tag: Some(-5),
        device: DeviceId([3; 32]),
        edited_ms: 41,
    }
}

fn paths(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|c| c.note.path.to_string()).collect()
}

#[test]
fn the_latest_come_first_and_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    journal.add(10, &[note("a/b", What::Created)]).unwrap();
    let two = [note("a/c", What::Created), note("a-b", What::Created)];
    journal.add(20, &two).unwrap();
    journal.add(30, &[note("a/b", What::Deleted)]).unwrap();
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    let all = journal.latest(Filter::default(), 10).unwrap();
    assert_eq!(paths(&all), ["a/b", "a-b", "a/c", "a/b"]);
    assert_eq!(all[0].note, note("a/b", What::Deleted));
    let at = RelPath::new("a").unwrap();
    let mut filter = Filter {
        at: Some(&at),
        ..Filter::default()
    };
    let below = journal.latest(filter, 10).unwrap();
    assert_eq!(paths(&below), ["a/b", "a/c", "a/b"]);
    filter.before = Some(below[0].id);
    assert_eq!(journal.latest(filter, 1).unwrap()[0].at_ms, 20);
    filter.after_ms = Some(10);
    assert_eq!(paths(&journal.latest(filter, 10).unwrap()), ["a/c"]);
    let b = RelPath::new("a/b").unwrap();
    let first = |ms| journal.first_after(&b, ms).unwrap().map(|c| c.at_ms);
    assert_eq!((first(0), first(10), first(30)), (Some(10), Some(30), None));
    assert!(journal.knows(&at).unwrap());
    assert!(!journal.knows(&RelPath::new("x").unwrap()).unwrap());
}

/// However they are grouped into statements.
#[test]
fn all_of_one_transaction_are_there_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
    let mut expected = Vec::new();
    for count in [1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 2] {
        let notes: Vec<Note> = (0..count)
            .map(|n| Note {
                size: n as u64,
                device: DeviceId([n as u8 % 3; 32]),
                ..note(&format!("{count}/{n}"), What::Changed)
            })
            .collect();
        journal.add(count as u64, &notes).unwrap();
        expected.splice(0..0, notes.into_iter().rev());
    }
    let all = journal.latest(Filter::default(), 1000).unwrap();
    let all: Vec<Note> = all.into_iter().map(|c| c.note).collect();
    assert_eq!(all, expected);
}

#[test]
fn it_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let page: Vec<Note> = (0..5_000)
        .map(|n| note(&format!("f{n}"), What::Created))
        .collect();
    for at in 0..(MAX_CHANGES + SLACK) / 5_000 + 1 {
        journal.add(at, &page).unwrap();
    }
    let count: i64 = journal
        .with(|db| {
            Ok(db
                .conn
                .query_row("SELECT count(*) FROM change", [], |r| r.get(0))?)
        })
        .unwrap();
    assert_eq!(count, MAX_CHANGES.cast_signed());
}

#[test]
fn damage_makes_it_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    for damage in [&b"no database"[..], b"", &[0x53; 5000]] {
        std::fs::write(&path, damage).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.latest(Filter::default(), 9).unwrap().is_empty());
        journal.add(1, &[note("a", What::Created)]).unwrap();
        drop(journal);
    }
    // A flipped bit in a row: an error once, then a new file.
    let journal = Journal::open(&path).unwrap();
    journal
        .with(|db| Ok(db.conn.execute("UPDATE change SET size = 8", [])?))
        .unwrap();
    assert!(journal.latest(Filter::default(), 9).is_err());
    assert!(journal.latest(Filter::default(), 9).unwrap().is_empty());
    journal.add(1, &[note("a", What::Created)]).unwrap();
    assert_eq!(journal.latest(Filter::default(), 9).unwrap().len(), 1);
    // A folder in its place.
    drop(journal);
    remove_files(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(
        Journal::open(&path)
            .unwrap()
            .latest(Filter::default(), 9)
            .unwrap()
            .is_empty()
    );
}
