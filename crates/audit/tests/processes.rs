//! Several writers under one directory, and writers that are killed. The test binary starts itself again as the writer.
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
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use govrun_audit::read::Records;
use govrun_audit::verify::{Level, Status, verify};
use govrun_audit::*;
use govrun_verdict::{DecisionId, Durability};
use support::*;

const DIR: &str = "GOVRUN_AUDIT_TEST_DIR";

/// Not a test by itself: the writer that the tests below start and kill. It says every acknowledged id.
#[test]
fn child_writer() {
    #[expect(clippy::disallowed_methods, reason = "how the parent tells its child where to write")]
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let keys = KeyStore::load(&dir.join("keys")).unwrap();
    let log = Log::open(&dir.join("audit"), &keys, Arc::new(SystemClock)).unwrap();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nopened {}", log.id()).unwrap();
    let classes = [Durability::Os, Durability::Os, Durability::Sealed, Durability::Os];
    for class in classes.into_iter().cycle() {
        let id = record(&log, &call(payment("1")), &allow(class)).unwrap();
        // One write, so that the line is whole or absent.
        out.write_all(format!("ack {id}\n").as_bytes()).unwrap();
    }
}

fn spawn(site: &Site) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writer", "--nocapture"])
        .env(DIR, site.root.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Let it write for a while, kill it, and say which log it wrote and what it was told is recorded.
fn kill_after(mut child: Child, acks: usize) -> (String, Vec<DecisionId>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let opened = lines.find_map(|l| l.unwrap().strip_prefix("opened ").map(str::to_owned)).unwrap();
    let mut ids = Vec::new();
    let mut killed = false;
    // What it said before it died is read to the end: all of it was acknowledged.
    while let Some(line) = lines.next().map(Result::unwrap) {
        if let Some(id) = line.strip_prefix("ack ") {
            ids.push(DecisionId::parse(id).unwrap());
        }
        if ids.len() >= acks && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    (opened, ids)
}

fn decisions(dir: &Path) -> BTreeSet<DecisionId> {
    let records = Records::open(dir).unwrap().map(Result::unwrap);
    records.filter(|r| r.head.kind == form::Kind::Decision).map(|r| r.id()).collect()
}

#[test]
fn killed_again_and_again_no_acknowledged_record_is_lost() {
    let site = Site::new();
    let mut acknowledged = Vec::new();
    let mut logs = BTreeSet::new();
    for round in 0..30_usize {
        let (log, ids) = kill_after(spawn(&site), round * 37 % 400);
        logs.insert(log);
        acknowledged.extend(ids);
        let code = check(&site, Level::L2).exit_code();
        assert!(code == 0 || code == 3, "round {round}: {}", check(&site, Level::L2));
        let kept = decisions(&site.logs());
        assert!(
            acknowledged.iter().all(|id| kept.contains(id)),
            "round {round}: an acknowledged record is lost"
        );
    }
    assert_eq!(logs.len(), 1, "the same log is taken up again each time");
    assert!(acknowledged.len() > 1_000, "{}", acknowledged.len());
    site.open().close().unwrap();
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    let kept = decisions(&site.logs());
    assert!(acknowledged.iter().all(|id| kept.contains(id)));
}

#[test]
fn eight_processes_write_eight_logs() {
    let site = Site::new();
    // All run at once: none is killed before all have opened.
    let mut children: Vec<Child> = (0..8).map(|_| spawn(&site)).collect();
    let mut opened = BTreeSet::new();
    let mut readers = Vec::new();
    for child in &mut children {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        opened.insert(lines.find_map(|l| l.unwrap().strip_prefix("opened ").map(str::to_owned)).unwrap());
        readers.push(lines);
    }
    assert_eq!(opened.len(), 8, "two processes write one log");
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    assert!(report.logs.iter().all(|l| l.status == Status::InProgress), "{report}");
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    drop(readers);
}

#[test]
fn eight_threads_that_open_at_once_get_eight_logs_and_give_them_back() {
    let site = Site::new();
    for _ in 0..2 {
        let logs: Vec<Log> = std::thread::scope(|scope| {
            let site = &site;
            let opening: Vec<_> = (0..8).map(|_| scope.spawn(move || site.open())).collect();
            opening.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let ids: BTreeSet<_> = logs.iter().map(Log::id).collect();
        assert_eq!(ids.len(), 8);
        for log in logs {
            record_n(&log, 1, Durability::Os);
            log.close().unwrap();
        }
    }
    assert_eq!(std::fs::read_dir(site.logs()).unwrap().count(), 8, "free logs are taken up again");
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
}

#[test]
fn a_log_verifies_while_it_is_being_written() {
    let site = Site::new();
    let log = site.open();
    // A bounded number of records: the verifier starts over each time and must not race an ever longer log.
    std::thread::scope(|scope| {
        let writers: Vec<_> = [Durability::Os, Durability::Sealed]
            .into_iter()
            .map(|class| {
                let log = log.clone();
                scope.spawn(move || (0..150).for_each(|_| drop(record_n(&log, 10, class))))
            })
            .collect();
        loop {
            let done = writers.iter().all(|w| w.is_finished());
            let report = check(&site, Level::L2);
            assert_eq!(report.exit_code(), 0, "{report}");
            assert_eq!(report.logs[0].status, Status::InProgress);
            if done {
                break;
            }
        }
    });
    log.close().unwrap();
    let report = check(&site, Level::L2);
    assert_eq!((report.exit_code(), report.logs[0].status), (0, Status::Closed), "{report}");
}

#[test]
fn threads_share_one_log_and_every_receipt_is_another_record() {
    let site = Site::new();
    let log = site.open();
    let ids: Vec<DecisionId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let log = log.clone();
                let class = [Durability::Os, Durability::Sealed, Durability::Disk, Durability::Sealed][i];
                scope.spawn(move || record_n(&log, 100, class))
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 400);
    log.close().unwrap();
    assert!(matches!(record(&log, &call(payment("1")), &allow(Durability::Os)), Err(AppendError::Closed)));
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(decisions(&site.logs()), ids.into_iter().collect());
    assert_eq!(verify(&site.logs(), &site.trust, Level::L2).logs[0].unsealed, 0);
}
