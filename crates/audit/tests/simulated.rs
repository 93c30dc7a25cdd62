//! A log on a simulated disk, crashed everywhere. Some hundreds of crashes by default; `GOVRUN_CRASHES=100000` for the long
//! form.
//!
//! After every crash: the log verifies as whole or as inconclusive where it was only cut, never as more than was written; it
//! opens again; no `disk` record that was acknowledged is lost, and after a kill no record of any class; it goes on and then
//! verifies; and no checkpoint that was published is contradicted by it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use govrun_audit::form::{Line, parse_line};
use govrun_audit::read::Records;
use govrun_audit::verify::Level;
use govrun_audit::*;
use govrun_verdict::{DecisionId, Durability};
use support::simulated::*;
use support::*;

/// Segments of a few records, so that crashes meet their ends.
fn limits() -> Limits {
    Limits { segment_bytes: 12_000, heartbeat: Duration::from_millis(20), ..Limits::default() }
}

/// Memory, where the system has a file system in it: the disk is simulated, not slow.
fn room() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn site_of(files: &Snapshot, trust: &Trust) -> Site {
    let root = room();
    write_all(root.path(), files);
    let keys = KeyStore::load(&root.path().join("keys")).unwrap();
    Site { root, keys, trust: trust.clone() }
}

fn open_on(site: &Site, disk: &SimDisk) -> Result<Log, OpenError> {
    Log::open_on(&site.logs(), &site.keys, TestClock::new(), Arc::new(disk.clone()), limits())
}

/// A log that was written and closed, and one that is killed while it writes: what the crashes begin with.
fn begun() -> (Snapshot, Trust) {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 2, Durability::Sealed);
    log.close().unwrap();
    let mut files = read_all(site.root.path());
    files.remove(std::path::Path::new("keys/root.key"));
    (files, site.trust)
}

/// Write a history on the disk: every class, epochs that end, segments that end, a clean end. Stops where the log fails.
fn write(site: &Site, disk: &SimDisk) {
    let Ok(log) = open_on(site, disk) else { return };
    let checkpoint = site.segment(log.id()).with_file_name("checkpoint");
    let mut published = String::new();
    let classes = [Durability::Os, Durability::Disk, Durability::Sealed, Durability::Os, Durability::Sealed];
    for (i, class) in classes.into_iter().cycle().take(25).enumerate() {
        let Ok(id) = record(&log, &call(payment(&i.to_string())), &allow(class)) else { break };
        disk.note(Op::Acknowledged(id, class));
        if i % 9 == 8 && log.rotate().is_err() {
            break;
        }
        if i % 6 == 5 {
            std::thread::sleep(Duration::from_millis(12));
        }
        if let Ok(now) = std::fs::read_to_string(&checkpoint)
            && now != published
        {
            published.clone_from(&now);
            disk.note(Op::Published(now));
        }
    }
    let _ = log.close();
}

fn decisions(site: &Site) -> BTreeSet<DecisionId> {
    let records = Records::open(&site.logs()).unwrap().map(Result::unwrap);
    records.filter(|r| r.head.kind == form::Kind::Decision).map(|r| r.id()).collect()
}

/// Size and root that a checkpoint states.
fn stated(note: &str) -> (u64, String) {
    let mut lines = note.lines().skip(1);
    (lines.next().unwrap().parse().unwrap(), lines.next().unwrap().to_owned())
}

/// The roots of the log at these sizes.
fn roots(site: &Site, log: govrun_verdict::LogId, sizes: &BTreeSet<u64>) -> BTreeSet<(u64, String)> {
    let mut tree = hash::Tree::EMPTY;
    let mut found = BTreeSet::new();
    for number in 1.. {
        let path = site.segment(log).with_file_name(format!("{number:08}.jsonl"));
        if !path.exists() {
            return found;
        }
        for line in lines(&path) {
            let line = &line[..line.len() - 1];
            if let Line::Record(_) = parse_line(line).unwrap() {
                tree.push(hash::leaf(line));
                if sizes.contains(&tree.size()) {
                    found.insert((tree.size(), form::B64(tree.root()).to_string()));
                }
            }
        }
    }
    found
}

struct Promised {
    acknowledged: Vec<DecisionId>,
    published: BTreeSet<(u64, String)>,
}

/// What was promised by these operations, if the crash was of this kind.
fn promised(ops: &[Op], crash: Crash) -> Promised {
    let mut promised = Promised { acknowledged: Vec::new(), published: BTreeSet::new() };
    for op in ops {
        match op {
            Op::Acknowledged(id, class) if *class == Durability::Disk || crash == Crash::Killed => {
                promised.acknowledged.push(*id);
            }
            Op::Published(note) => drop(promised.published.insert(stated(note))),
            _ => {}
        }
    }
    promised
}

/// The log goes on after this crash, and everything that was promised holds.
fn check_crash(files: &Snapshot, trust: &Trust, promised: &Promised, what: &str) {
    let site = site_of(files, trust);
    let before = check(&site, Level::L2);
    if before.exit_code() == 0 {
        let kept = decisions(&site);
        assert!(promised.acknowledged.iter().all(|id| kept.contains(id)), "{what}: a false accept: {before}");
    }
    let log = site_open(&site, what);
    let id = log.id();
    record_n(&log, 1, Durability::Sealed);
    log.close().unwrap_or_else(|e| panic!("{what}: {e}"));
    let after = check(&site, Level::L2);
    assert_eq!(after.exit_code(), 0, "{what}: {after}\n{}", ends(&site));
    assert_eq!(after.logs.len(), 1, "{what}: another log was begun");
    let kept = decisions(&site);
    for id in &promised.acknowledged {
        assert!(kept.contains(id), "{what}: the acknowledged {id} is lost");
    }
    let sizes = promised.published.iter().map(|(size, _)| *size).collect();
    assert_eq!(
        roots(&site, id, &sizes),
        promised.published,
        "{what}: a published checkpoint is contradicted"
    );
}

fn site_open(site: &Site, what: &str) -> Log {
    Log::open_on(&site.logs(), &site.keys, TestClock::new(), Arc::new(storage::LocalDisk), limits())
        .unwrap_or_else(|e| panic!("{what}: the log does not open again: {e}\n{}", ends(site)))
}

/// What the lines of the log are, for whoever looks into a failure.
fn ends(site: &Site) -> String {
    let mut told = String::new();
    for (name, content) in read_all(site.root.path()) {
        let name = name.display().to_string();
        if !name.ends_with(".jsonl") || name.ends_with("openings.jsonl") {
            continue;
        }
        for line in content.split(|b| *b == b'\n') {
            told += &match parse_line(line) {
                Ok(Line::Record(f)) => format!("{name} {} {}\n", f.head.seq, f.head.kind.name()),
                Ok(Line::Seal(s)) => {
                    format!("{name} seal {} of {}, synced {}\n", s.epoch.0, s.size.0, s.synced.0)
                }
                Err(e) => format!("{name} {} bytes: {e}\n", line.len()),
            };
        }
    }
    told
}

const KINDS: [Crash; 5] = [Crash::Killed, Crash::Lost, Crash::Torn, Crash::Cut, Crash::Any];

fn crashes(default: usize) -> usize {
    #[expect(clippy::disallowed_methods, reason = "how long the test is to run, from whoever runs it")]
    let asked = std::env::var("GOVRUN_CRASHES").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(default)
}

/// Crash one history everywhere, and some of the reopenings after it too. Says how many crashes there were.
fn crash_everywhere(base: &Snapshot, trust: &Trust, trouble: Trouble, dice: &mut Dice, step: usize) -> usize {
    let site = site_of(base, trust);
    let disk = SimDisk::new(site.root.path(), trouble);
    write(&site, &disk);
    let ops = std::mem::take(&mut disk.trace.lock().unwrap().ops);
    let mut crashes = 0;
    for end in (1 + dice.roll(step)..=ops.len()).step_by(step) {
        let ops = &ops[..end];
        let kind = KINDS[dice.roll(KINDS.len())];
        let files = after_crash(base, ops, kind, dice);
        let mut promised = promised(ops, kind);
        let what = format!("{trouble:?}, {kind:?} after {end} operations");
        check_crash(&files, trust, &promised, &what);
        crashes += 1;
        if dice.roll(4) == 0 {
            // It crashes again while it is being opened.
            if kind == Crash::Killed {
                promised.acknowledged = self::promised(ops, Crash::Any).acknowledged;
            }
            crash_again(&files, trust, &promised, &what, dice);
            crashes += 1;
        }
    }
    crashes
}

fn crash_again(files: &Snapshot, trust: &Trust, promised: &Promised, what: &str, dice: &mut Dice) {
    let site = site_of(files, trust);
    let disk = SimDisk::new(site.root.path(), Trouble::None);
    let log = open_on(&site, &disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    let ops = disk.trace.lock().unwrap().ops.clone();
    drop(log);
    let end = 1 + dice.roll(ops.len());
    let kind = KINDS[dice.roll(KINDS.len())];
    let files = after_crash(files, &ops[..end], kind, dice);
    check_crash(&files, trust, promised, &format!("{what}, then {kind:?} after {end} of the reopening"));
}

#[test]
fn a_power_loss_anywhere_loses_nothing_that_was_promised() {
    let (base, trust) = begun();
    let wanted = crashes(400);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut done = 0;
    while done < wanted {
        done += crash_everywhere(&base, &trust, Trouble::None, &mut dice, 1);
    }
    println!("{done} crashes");
}

#[test]
fn a_power_loss_after_a_failed_write_or_sync_loses_nothing_that_was_promised() {
    let (base, trust) = begun();
    let wanted = crashes(300);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (mut done, mut at) = (0, 0);
    while done < wanted {
        let trouble = if dice.roll(2) == 0 { Trouble::Refused(at) } else { Trouble::Kept(at) };
        // Fewer crashes for each place where something fails, more places.
        done += crash_everywhere(&base, &trust, trouble, &mut dice, 17);
        at = (at + 1 + dice.roll(5)) % 160;
    }
    println!("{done} crashes");
}
