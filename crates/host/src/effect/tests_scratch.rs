//! A private copy is complete, private and exact about what changed.

use std::fs;
use std::path::Path;

use govrun_verdict::{FsMode, Preopen};

use super::scratch::{ChangeKind, Scratch, ScratchError};

fn preopen(dir: &Path) -> [Preopen; 1] {
    [Preopen { host: dir.to_str().unwrap().into(), guest: "/data".into(), mode: FsMode::ReadWrite }]
}

#[test]
fn changes_are_exact_and_the_real_tree_is_untouched() {
    let real = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "key").unwrap();
    for name in ["keep", "same-size", "gone", "old", "linked"] {
        fs::write(real.path().join(name), "aaaa").unwrap();
    }
    fs::hard_link(real.path().join("linked"), real.path().join("linked2")).unwrap();
    std::os::unix::fs::symlink(outside.path(), real.path().join("link")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(real.path().join("pipe")).status().unwrap();
    assert!(fifo.success());
    let scratch = Scratch::of(&preopen(real.path()), 100).unwrap();
    assert_eq!((scratch.skipped(), scratch.remaining_bytes()), (4, 84));
    assert_eq!(scratch.changes().unwrap().total, 0);
    let (copy, guest) = scratch.views().remove(0);
    assert_eq!(guest, "/data");
    assert!(!copy.join("link").exists() && !copy.join("linked").exists());
    fs::write(copy.join("same-size"), "bbbb").unwrap();
    fs::remove_file(copy.join("gone")).unwrap();
    fs::rename(copy.join("old"), copy.join("renamed")).unwrap();
    fs::create_dir(copy.join("sub")).unwrap();
    fs::write(copy.join("sub/new"), "12").unwrap();
    let changes = scratch.changes().unwrap();
    let seen: Vec<_> = changes.list.iter().map(|c| (c.kind, c.guest_path.as_str(), c.bytes)).collect();
    let expected = [
        (ChangeKind::Deleted, "/data/gone", 4),
        (ChangeKind::Deleted, "/data/old", 4),
        (ChangeKind::Created, "/data/renamed", 4),
        (ChangeKind::Modified, "/data/same-size", 4),
        (ChangeKind::Created, "/data/sub", 0),
        (ChangeKind::Created, "/data/sub/new", 2),
    ];
    assert_eq!(seen, expected);
    assert_eq!(changes.total, 6);
    for name in ["keep", "same-size", "gone", "old"] {
        assert_eq!(fs::read(real.path().join(name)).unwrap(), b"aaaa");
    }
    drop(scratch);
    assert!(!copy.exists());
}

#[test]
fn larger_trees_are_refused() {
    let real = tempfile::tempdir().unwrap();
    fs::write(real.path().join("a"), [0; 100]).unwrap();
    assert!(Scratch::of(&preopen(real.path()), 100).is_ok());
    let refused = Scratch::of(&preopen(real.path()), 99);
    assert!(matches!(refused, Err(ScratchError::TooLarge { cap: "bytes" })));
}
