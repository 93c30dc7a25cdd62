//! Whatever is wrong with the file is a clear refusal, and the file stays as it was.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use govrun_control::{Store, StoreError};
use govrun_verdict::Timestamp;

use crate::support::{T0, admitted, open, usage};

/// A state directory in which one budget is used up.
fn used_up() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..2_000 {
        assert!(admitted(&store, &[usage("b", "k", 2_000, 3_600_000)], T0 + n));
    }
    let path = store.path().to_owned();
    drop(store);
    // One file, without a journal that could heal what the tests damage.
    let engine = rusqlite::Connection::open(&path).unwrap();
    engine.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    (dir, path)
}

fn refused(dir: &Path) -> StoreError {
    match Store::open(dir) {
        Ok(_) => panic!("must not open"),
        Err(error) => error,
    }
}

#[test]
fn a_damaged_file_is_named_and_never_replaced() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("header", |bytes| bytes[..64].fill(0x5a)),
        ("emptied", |bytes| bytes.clear()),
        ("text", |bytes| *bytes = b"hello".repeat(1_000)),
        ("schema", |bytes| bytes[100..4_000].fill(0xff)),
    ];
    for (name, damage) in damages {
        let (dir, path) = used_up();
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, StoreError::Corrupt { .. }), "{name}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("backup"), "{name}: {text}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}: the file was touched");
    }
}

#[test]
fn damage_inside_the_file_refuses_the_reservation() {
    let (dir, path) = used_up();
    let mut bytes = fs::read(&path).unwrap();
    // Everything behind the page of the schema.
    bytes[4_096..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let error = match Store::open(dir.path()) {
        Err(error) => error,
        Ok(store) => {
            assert!(matches!(store.check(), Err(StoreError::Corrupt { .. })));
            store.reserve(&[usage("b", "k", 2_000, 3_600_000)], Timestamp(T0)).unwrap_err()
        }
    };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_file_cut_short_does_not_reset_a_budget() {
    let (dir, path) = used_up();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    if let Ok(store) = Store::open(dir.path()) {
        assert!(matches!(store.check(), Err(StoreError::Corrupt { .. })));
        for n in 0..100 {
            let answer = store.reserve(&[usage("b", "k", 2_000, 3_600_000)], Timestamp(T0 + n));
            assert!(!matches!(answer, Ok(govrun_control::Reserved::Admitted { .. })), "{answer:?}");
        }
    }
}

#[test]
fn a_journal_without_its_file_is_not_replayed_into_a_new_one() {
    let (dir, path) = used_up();
    fs::remove_file(&path).unwrap();
    let wal = path.with_extension("db-wal");
    fs::write(&wal, b"what was left").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error:?}");
    assert!(!path.exists());
    assert_eq!(fs::read(&wal).unwrap(), b"what was left");
}

fn pragma(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_newer_schema_says_so() {
    let (dir, path) = used_up();
    pragma(&path, "PRAGMA user_version = 7");
    let error = refused(dir.path());
    assert!(matches!(error, StoreError::Newer { found: 7, known: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("run the newer govrun"), "{error}");
}

#[test]
fn another_programs_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    pragma(&path, "CREATE TABLE notes (text)");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(refused(dir.path()), StoreError::Foreign { .. }));
}

#[test]
fn the_state_is_private_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let store = open(&state);
    assert!(admitted(&store, &[usage("b", "k", 1, 1)], T0));
    assert_eq!(mode(&state), 0o700);
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
    drop(store);
    let path = state.join("state.db");
    for (exposed, bits, private) in [(&path, 0o644, 0o600), (&path, 0o620, 0o600), (&state, 0o770, 0o700)] {
        fs::set_permissions(exposed, fs::Permissions::from_mode(bits)).unwrap();
        let error = refused(&state);
        assert!(matches!(error, StoreError::Exposed { .. }), "{error:?}");
        assert!(error.to_string().contains("chmod"), "{error}");
        fs::set_permissions(exposed, fs::Permissions::from_mode(private)).unwrap();
    }
    open(&state);
}

#[test]
fn a_directory_that_cannot_be_made_or_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(refused(&file.join("state")), StoreError::Io { .. }));
    // Nobody, not even root, makes files there.
    assert!(matches!(refused(Path::new("/proc/self/govrun")), StoreError::Io { .. }));
    assert!(matches!(refused(Path::new("/proc/self/task")), StoreError::Io { .. }));
}
