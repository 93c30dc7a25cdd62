//! Writes that fail, machines that stop: nothing that was acknowledged is lost, and nothing is called whole that is not.
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

use std::sync::Arc;

use govrun_audit::read::Records;
use govrun_audit::verify::{self, Level, Outcome};
use govrun_audit::*;
use govrun_verdict::{DecisionId, Durability};
use support::faulty::{EIO, ENOSPC, Fault, FaultyDisk, Plan};
use support::*;

/// The decisions that can be read from all logs.
fn decisions(dir: &std::path::Path) -> Vec<DecisionId> {
    let records = Records::open(dir).unwrap().map(Result::unwrap);
    records.filter(|r| r.head.kind == form::Kind::Decision).map(|r| r.id()).collect()
}

#[test]
fn a_torn_last_line_goes_to_quarantine_and_the_log_goes_on() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    let ids = record_n(&log, 5, Durability::Sealed);
    let image = site.snapshot();
    log.close().unwrap();
    let segment = image.segment(id);
    let whole = std::fs::read(&segment).unwrap();
    let starts: Vec<usize> = std::iter::once(0)
        .chain(whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1))
        .collect();
    // Cut within the last two lines, a record and its seal: at every line end, and all over the lines.
    let from = starts[starts.len() - 3] + 1;
    let ends = starts.iter().flat_map(|s| [s.wrapping_sub(1), *s, s + 1]);
    let mut cuts: Vec<usize> =
        (from..whole.len()).step_by(41).chain(ends).filter(|c| (from..whole.len()).contains(c)).collect();
    cuts.dedup();
    for cut in cuts {
        let site = image.snapshot();
        let target = site.logs().join(id.to_string());
        std::fs::write(target.join("00000001.jsonl"), &whole[..cut]).unwrap();
        let torn = !starts.contains(&cut);
        let before = check(&site, Level::L2);
        let sealed_end = cut == starts[starts.len() - 1];
        assert_eq!(before.exit_code(), if torn || !sealed_end { 3 } else { 0 }, "cut at {cut}: {before}");
        let log = site.open();
        assert_eq!(log.id(), id);
        record_n(&log, 1, Durability::Sealed);
        log.close().unwrap();
        let after = check(&site, Level::L2);
        assert_eq!(after.exit_code(), 0, "cut at {cut}: {after}");
        assert_eq!(target.join("quarantine").exists(), torn);
        let kept = decisions(&site.logs());
        assert!(ids[..4].iter().all(|i| kept.contains(i)), "cut at {cut}");
    }
}

#[test]
fn records_recovered_without_a_signature_are_named_by_the_verifier() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 1, Durability::Sealed);
    let first = record_n(&log, 3, Durability::Os)[0];
    let image = site.snapshot();
    log.close().unwrap();
    let segment = image.segment(id);
    // Whatever was sealed meanwhile: leave the three records without a seal, as a kill within 10 ms would.
    let kept: Vec<Vec<u8>> = lines(&segment);
    let last = kept.iter().rposition(|l| !l.starts_with(b"{\"v\":1,\"t\":\"seal\"")).unwrap();
    std::fs::write(&segment, kept[..=last].concat()).unwrap();
    assert_eq!(check(&image, Level::L2).exit_code(), 3);
    let again = Log::open(&image.logs(), &image.keys, TestClock::new()).unwrap();
    again.close().unwrap();
    let report = check(&image, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    let told = format!("records {} to {} were not under any signature", first.seq, first.seq + 2);
    assert!(report.to_string().contains(&told), "{report}");
}

#[test]
fn what_a_cut_end_hides_is_always_named() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 4, Durability::Sealed);
    log.close().unwrap();
    let all = lines(&site.segment(id));
    for keep in 1..all.len() {
        let report = check_bytes(&site, id, &all[..keep].concat());
        let ends_in_seal = all[keep - 1].starts_with(b"{\"v\":1,\"t\":\"seal\"");
        assert_eq!(report.exit_code(), if ends_in_seal { 0 } else { 3 }, "{keep} lines: {report}");
        assert!(report.to_string().contains("records cut off the end together with their seals"), "{report}");
        assert_eq!(
            report.logs[0].status,
            verify::Status::NotClosed.min_if(keep == all.len() - 1),
            "{report}"
        );
    }
}

trait MinIf {
    fn min_if(self, closed: bool) -> Self;
}

impl MinIf for verify::Status {
    /// The last line of all is the second seal after `close`.
    fn min_if(self, closed: bool) -> Self {
        if closed { Self::Closed } else { self }
    }
}

#[test]
fn damage_below_the_synced_size_stops_the_start_with_its_place() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 3, Durability::Disk);
    record_n(&log, 1, Durability::Sealed);
    let image = site.snapshot();
    log.close().unwrap();
    let segment = image.segment(id);
    let good = std::fs::read(&segment).unwrap();
    let all = lines(&segment);
    // The last seal says that three decisions were on disk; the third of them is the record to hit.
    let at = all.iter().position(|l| l.windows(9).any(|w| w == b"\"seq\":4,\"")).unwrap();
    let byte: usize = all[..at].iter().map(Vec::len).sum();
    let mut bad = good.clone();
    bad[byte + 3] ^= 1;
    std::fs::write(&segment, &bad).unwrap();
    let before = std::fs::read(&segment).unwrap();
    let error = Log::open(&image.logs(), &image.keys, TestClock::new()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("00000001.jsonl:{}:{byte}", at + 1)), "{text}");
    assert!(text.contains("no crash did it"), "{text}");
    assert_eq!(std::fs::read(&segment).unwrap(), before, "nothing was written");
    // So does damage to the seal over it.
    let mut bad = all.clone();
    bad[at + 1][40] ^= 1;
    std::fs::write(&segment, bad.concat()).unwrap();
    let text = Log::open(&image.logs(), &image.keys, TestClock::new()).unwrap_err().to_string();
    assert!(text.contains("the seal over 5 records, which was on disk, is missing or altered"), "{text}");
    // An emptied or beheaded log is not continued either.
    for content in [&b""[..], &good[all[0].len()..]] {
        std::fs::write(&segment, content).unwrap();
        assert!(matches!(
            Log::open(&image.logs(), &image.keys, TestClock::new()),
            Err(OpenError::Damaged { .. })
        ));
    }
}

#[test]
fn a_lost_block_above_the_synced_size_is_moved_aside_with_all_that_follows() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 2, Durability::Disk);
    let kept = record_n(&log, 2, Durability::Sealed);
    let image = site.snapshot();
    log.close().unwrap();
    let segment = image.segment(id);
    let all = lines(&segment);
    let last = all.iter().rposition(|l| !l.starts_with(b"{\"v\":1,\"t\":\"seal\"")).unwrap();
    let start: usize = all[..last].iter().map(Vec::len).sum();
    let mut bytes = all.concat();
    bytes[start..start + 300].fill(0);
    // More than what recovery writes: what is not cut off would show behind it.
    bytes.extend([b'x'; 100_000]);
    std::fs::write(&segment, &bytes).unwrap();
    assert_ne!(check(&image, Level::L2).exit_code(), 0);
    let log = Log::open(&image.logs(), &image.keys, TestClock::new()).unwrap();
    log.close().unwrap();
    let report = check(&image, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    assert!(report.to_string().contains("moved to quarantine"), "{report}");
    assert!(decisions(&image.logs()).contains(&kept[0]));
    assert!(!decisions(&image.logs()).contains(&kept[1]), "the lost record is not invented");
    let moved = std::fs::read_dir(image.logs().join(id.to_string()).join("quarantine"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(std::fs::read(moved.path()).unwrap(), &bytes[start..]);
}

/// Run the same short history on a disk that fails from write `at` on, and say what was acknowledged.
fn history(site: &Site, plan: &Arc<Plan>) -> (Vec<DecisionId>, bool) {
    let disk = Arc::new(FaultyDisk(Arc::clone(plan)));
    let mut acknowledged = Vec::new();
    let Ok(log) = Log::open_on(&site.logs(), &site.keys, TestClock::new(), disk, Limits::default()) else {
        return (acknowledged, true);
    };
    let mut failed = false;
    for (i, class) in [Durability::Os, Durability::Sealed, Durability::Disk, Durability::Os, Durability::Disk]
        .into_iter()
        .enumerate()
    {
        let result = record(&log, &call(payment(&i.to_string())), &allow(class));
        match result {
            Ok(id) => {
                assert!(!failed, "a failed log took a record");
                acknowledged.push(id);
            }
            Err(_) => failed = true,
        }
    }
    if failed {
        assert!(
            log.outcome(&outcome(
                acknowledged.first().copied().unwrap_or(DecisionId { log: log.id(), seq: 0 })
            ))
            .is_err()
        );
        assert!(log.close().is_err(), "a failed log cannot be closed as if nothing had happened");
    } else {
        failed = log.close().is_err();
    }
    (acknowledged, failed)
}

fn after_failure(site: &Site, acknowledged: &[DecisionId], context: &str) {
    let log =
        Log::open(&site.logs(), &site.keys, TestClock::new()).unwrap_or_else(|e| panic!("{context}: {e}"));
    record_n(&log, 1, Durability::Disk);
    log.close().unwrap();
    let report = check(site, Level::L2);
    assert_eq!(report.exit_code(), 0, "{context}: {report}");
    let kept = decisions(&site.logs());
    for id in acknowledged {
        assert!(kept.contains(id), "{context}: the acknowledged {id} is lost");
    }
}

#[test]
fn every_write_failing_in_every_way_loses_no_acknowledged_record() {
    let ways = [
        Fault::Refused(EIO),
        Fault::Refused(ENOSPC),
        Fault::Partial(EIO),
        Fault::Partial(ENOSPC),
        Fault::Kept(EIO),
        Fault::Short,
    ];
    let plan = Arc::new(Plan::default());
    let clean = Site::new();
    let (all, failed) = history(&clean, &plan);
    assert!(!failed && all.len() == 5);
    let writes = plan.writes.load(std::sync::atomic::Ordering::SeqCst);
    assert!(writes > 12, "{writes}");
    let blank = Site::new();
    for way in ways {
        for at in 0..writes {
            let site = blank.snapshot();
            let plan = Arc::new(Plan::default());
            *plan.fail_write.lock().unwrap() = Some((at, way));
            let (acknowledged, failed) = history(&site, &plan);
            // The background seal may save a write, so the last indices may not be reached.
            let reached = plan.writes.load(std::sync::atomic::Ordering::SeqCst) > at;
            assert_eq!(failed, reached && way != Fault::Short, "{way:?} at {at}");
            after_failure(&site, &acknowledged, &format!("{way:?} at write {at}"));
        }
    }
}

#[test]
fn a_failing_sync_stops_the_log_is_never_retried_and_is_recorded() {
    let blank = Site::new();
    for at in 0..12 {
        let site = blank.snapshot();
        let plan = Arc::new(Plan::default());
        *plan.fail_sync.lock().unwrap() = Some(at);
        let (acknowledged, failed) = history(&site, &plan);
        let syncs = plan.syncs.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(failed, syncs > at, "sync {at}");
        assert_eq!(plan.retried.load(std::sync::atomic::Ordering::SeqCst), 0, "sync {at} was tried again");
        if !acknowledged.is_empty() && failed {
            let id = acknowledged[0].log;
            let text = std::fs::read_to_string(site.segment(id)).unwrap();
            // While an epoch ends no key may sign another record.
            let record = text.lines().rfind(|l| !l.starts_with("{\"v\":1,\"t\":\"seal\"")).unwrap();
            let says = ["io_error", "key_epoch"].iter().any(|t| record.contains(&format!("\"t\":\"{t}\"")));
            assert!(says, "sync {at}: the log does not say why it ends: {record}");
        }
        after_failure(&site, &acknowledged, &format!("sync {at}"));
    }
}

#[test]
fn openings_that_cannot_be_written_stop_the_log() {
    let site = Site::new();
    let log = site.open();
    let openings = site.segment(log.id()).with_file_name("openings.jsonl");
    std::fs::create_dir(&openings).unwrap();
    let error = record(&log, &call(payment("1")), &allow(Durability::Os)).unwrap_err();
    assert!(matches!(error, AppendError::Failed(_)), "{error}");
}

#[test]
fn a_log_of_other_keys_is_not_touched() {
    let (ours, theirs) = (Site::new(), Site::new());
    let log = theirs.open();
    let id = log.id();
    log.close().unwrap();
    let before = std::fs::read(theirs.segment(id)).unwrap();
    let error = Log::open(&theirs.logs(), &ours.keys, TestClock::new()).unwrap_err();
    assert!(matches!(error, OpenError::ForeignKey { .. }), "{error}");
    assert!(error.to_string().contains(ours.keys.certificate().root().name()), "{error}");
    assert_eq!(std::fs::read(theirs.segment(id)).unwrap(), before);
}

#[test]
fn a_clock_that_steps_back_is_recorded_and_a_broken_one_stops_the_call_not_the_log() {
    let site = Site::new();
    let clock = TestClock::new();
    let log = Log::open(&site.logs(), &site.keys, clock.clone()).unwrap();
    record_n(&log, 1, Durability::Os);
    clock.set(T0 - 5_000_000);
    record_n(&log, 1, Durability::Os);
    clock.set(1_000_000);
    let error = record(&log, &call(payment("1")), &allow(Durability::Os)).unwrap_err();
    assert!(matches!(error, AppendError::Clock(ClockError::TooEarly(_))), "{error}");
    clock.set(T0 + 1_000_000);
    record_n(&log, 1, Durability::Os);
    let id = log.id();
    log.close().unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    assert_eq!(text.matches("\"t\":\"clock_step\"").count(), 1, "once back, not once forward");
}

#[test]
fn reopening_reads_the_end_only() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 20_000, Durability::Os);
    log.close().unwrap();
    let size = std::fs::metadata(site.segment(id)).unwrap().len();
    assert!(size > 16 << 20, "{size}");
    let plan = Arc::new(Plan::default());
    let disk = Arc::new(FaultyDisk(Arc::clone(&plan)));
    let log = Log::open_on(&site.logs(), &site.keys, TestClock::new(), disk, Limits::default()).unwrap();
    assert_eq!(log.id(), id);
    let read = plan.bytes_read.load(std::sync::atomic::Ordering::SeqCst);
    assert!(read < 256 * 1024, "{read} bytes of {size} were read");
    log.close().unwrap();
    assert_eq!(check(&site, Level::L1).exit_code(), 0);
}

#[test]
fn a_record_reaches_its_class_before_it_is_acknowledged() {
    let site = Site::new();
    let plan = Arc::new(Plan::default());
    let log = Log::open_on(
        &site.logs(),
        &site.keys,
        TestClock::new(),
        Arc::new(FaultyDisk(Arc::clone(&plan))),
        Limits::default(),
    )
    .unwrap();
    let ends_in_seal_of = |id: DecisionId| {
        let all = lines(&site.segment(id.log));
        let seal = all.iter().rev().find(|l| l.starts_with(b"{\"v\":1,\"t\":\"seal\"")).unwrap();
        let seal = form::SealLine::parse(&seal[..seal.len() - 1]).unwrap();
        seal.size.0 > id.seq
    };
    for _ in 0..20 {
        let os = record_n(&log, 1, Durability::Os)[0];
        assert!(decisions(&site.logs()).contains(&os), "os: written");
        let sealed = record_n(&log, 1, Durability::Sealed)[0];
        assert!(ends_in_seal_of(sealed), "sealed: under a signature");
        let before = plan.syncs.load(std::sync::atomic::Ordering::SeqCst);
        let disk = record_n(&log, 1, Durability::Disk)[0];
        assert!(ends_in_seal_of(disk), "disk: under a signature");
        assert!(plan.syncs.load(std::sync::atomic::Ordering::SeqCst) > before, "disk: synced");
    }
}

#[test]
fn an_unsealed_record_is_sealed_within_its_window_and_synced_within_a_second() {
    let site = Site::new();
    let plan = Arc::new(Plan::default());
    let log = Log::open_on(
        &site.logs(),
        &site.keys,
        TestClock::new(),
        Arc::new(FaultyDisk(Arc::clone(&plan))),
        Limits::default(),
    )
    .unwrap();
    let id = log.id();
    let seals =
        || lines(&site.segment(id)).iter().filter(|l| l.starts_with(b"{\"v\":1,\"t\":\"seal\"")).count();
    let (seals_before, syncs_before) = (seals(), plan.syncs.load(std::sync::atomic::Ordering::SeqCst));
    record_n(&log, 1, Durability::Os);
    let start = std::time::Instant::now();
    while seals() == seals_before {
        // The promise is 10 ms; a loaded machine may schedule late.
        assert!(start.elapsed() < std::time::Duration::from_secs(2), "no seal");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    while plan.syncs.load(std::sync::atomic::Ordering::SeqCst) == syncs_before {
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "no sync");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let idle = plan.syncs.load(std::sync::atomic::Ordering::SeqCst);
    assert!(idle <= syncs_before + 2, "an idle log is left alone: {idle}");
    assert_eq!(check(&site, Level::L2).outcome(), Outcome::Verified);
}
