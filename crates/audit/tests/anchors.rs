//! Level L3: what a pin or witnesses have seen must still be there and be the same. And proofs of single records.
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

use std::path::Path;

use govrun_audit::cosign::{self, WitnessKey};
use govrun_audit::note::Note;
use govrun_audit::pin::Pin;
use govrun_audit::prove::{Proof, Prover, leaves};
use govrun_audit::verify::{Anchor, Ask, Level, Outcome, Report, verify_asked};
use govrun_audit::witness::{Reply, Witness};
use govrun_audit::{Certificate, Trust, WitnessSecret, certified, submit};
use govrun_verdict::{Durability, LogId};
use support::*;

fn held(dir: &Path, trust: &Trust, anchors: &[Anchor]) -> Report {
    verify_asked(dir, trust, &Ask { anchors, ..Ask::level(Level::L3) })
}

fn pinned(site: &Site) -> Pin {
    Pin::default().moved_on(&check(site, Level::L2)).expect("a pin of what holds")
}

/// A closed log of a few records, and the pin of it.
fn closed_and_pinned(records: usize) -> (Site, LogId, Pin) {
    let site = Site::new();
    let log = site.open();
    record_n(&log, records, Durability::Sealed);
    let id = log.id();
    log.close().unwrap();
    let pin = pinned(&site);
    (site, id, pin)
}

#[test]
fn completeness_needs_something_to_go_by() {
    let (site, _, pin) = closed_and_pinned(3);
    let report = held(&site.logs(), &site.trust, &[]);
    assert_eq!(report.exit_code(), 3, "{report}");
    let report = held(&site.logs(), &site.trust, &pin.anchors());
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(report.logs[0].anchored, Some(report.logs[0].records), "{report}");
}

#[test]
fn a_tail_cut_off_with_its_seals_is_seen_by_a_pin_and_by_nothing_else() {
    let (site, id, pin) = closed_and_pinned(6);
    let lines = lines(&site.segment(id));
    let is_seal = |line: &Vec<u8>| line.starts_with(b"{\"v\":1,\"t\":\"seal\"");
    // Every place where a log can end without a trace: right after a seal.
    for at in (0..lines.len() - 1).filter(|at| is_seal(&lines[*at])) {
        std::fs::write(site.segment(id), lines[..=at].concat()).unwrap();
        let alone = check(&site, Level::L2);
        let same_size = alone.logs[0].last_seal.as_ref().map(|s| s.size) == Some(pin.anchors()[0].size);
        assert_eq!(alone.exit_code(), 0, "line {at}: {alone}");
        let open = alone.all_not_covered().any(|what| what.contains("records cut off the end"));
        assert!(open, "what cannot be seen is said: {alone}");
        let report = held(&site.logs(), &site.trust, &pin.anchors());
        assert_eq!(report.exit_code(), if same_size { 0 } else { 5 }, "line {at}: {report}");
        assert!(same_size || report.to_string().contains("a rollback: the pin saw"), "{report}");
    }
}

#[test]
fn a_log_that_was_deleted_or_emptied_is_seen_by_a_pin() {
    let (site, id, pin) = closed_and_pinned(2);
    let other = site.open();
    record_n(&other, 1, Durability::Sealed);
    other.close().unwrap();
    std::fs::write(site.segment(id), b"").unwrap();
    assert_eq!(held(&site.logs(), &site.trust, &pin.anchors()).exit_code(), 1, "an emptied log is tampered");
    std::fs::remove_dir_all(site.logs().join(id.to_string())).unwrap();
    let report = held(&site.logs(), &site.trust, &pin.anchors());
    assert_eq!(report.exit_code(), 5, "{report}");
    assert!(report.to_string().contains("which is not here"), "{report}");
}

/// Two histories of one log, both signed by its own keys: the keys of a snapshot go on in another way.
#[test]
fn a_fork_is_seen_with_both_notes() {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 2, Durability::Disk);
    let id = log.id();
    let before = site.snapshot();
    record_n(&log, 3, Durability::Disk);
    log.close().unwrap();
    let pin = pinned(&site);
    let forked = before.open();
    assert_eq!(forked.id(), id, "the copy goes on with the same log");
    record_n(&forked, 9, Durability::Disk);
    forked.close().unwrap();
    assert_eq!(check(&before, Level::L2).exit_code(), 0, "each history holds by itself");
    let report = held(&before.logs(), &site.trust, &pin.anchors());
    assert_eq!(report.exit_code(), 5, "{report}");
    let finding = report.logs[0].findings.iter().find(|f| f.outcome == Outcome::Fork).unwrap();
    let expected = finding.expected.as_ref().unwrap();
    assert!(expected.contains(pin.anchors()[0].note.lines().nth(2).unwrap()), "{report}");
    assert!(finding.found.as_ref().unwrap().contains("root "), "{report}");
}

#[test]
fn a_pin_moves_on_with_the_log_and_never_back() {
    let site = Site::new();
    let file = site.root.path().join("pin.json");
    let log = site.open();
    let mut size = 0;
    for _ in 0..3 {
        record_n(&log, 5, Durability::Disk);
        let pin = Pin::load(&file).unwrap().unwrap_or_default();
        let report = held(&site.logs(), &site.trust, &pin.anchors());
        let moved = pin.moved_on(&report).expect("a log that is being written has no false failures");
        moved.save(&file).unwrap();
        let now = moved.anchors()[0].size;
        assert!(now >= size + 5, "{now} after {size}");
        size = now;
    }
    let newest = Pin::load(&file).unwrap().unwrap();
    let older = site.snapshot();
    drop(log);
    // An older state is a rollback, and the pin stays.
    std::fs::write(older.segment(report_id(&older)), lines(&older.segment(report_id(&older)))[..4].concat())
        .unwrap();
    let report = held(&older.logs(), &site.trust, &newest.anchors());
    assert_eq!(report.exit_code(), 5, "{report}");
    assert_eq!(newest.moved_on(&report), None);
}

fn report_id(site: &Site) -> LogId {
    govrun_audit::read::logs(&site.logs()).unwrap()[0]
}

#[test]
fn a_damaged_pin_is_never_taken_for_an_absent_one() {
    let (site, _, pin) = closed_and_pinned(2);
    let file = site.root.path().join("pin.json");
    pin.save(&file).unwrap();
    assert_eq!(Pin::load(&file).unwrap(), Some(pin));
    let text = std::fs::read_to_string(&file).unwrap();
    for damaged in ["", "{}", "null", &text[..text.len() / 2], &text.replace("v1", "v2")] {
        std::fs::write(&file, damaged).unwrap();
        assert!(Pin::load(&file).is_err(), "{damaged}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(Pin::load(&file).unwrap(), None);
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    assert!(Pin::load(&file).is_err(), "a link is not followed");
}

/// A log that goes on, and two witnesses that look after it.
struct Watched {
    site: Site,
    witnesses: Vec<Witness>,
}

impl Watched {
    fn new() -> Self {
        let mut site = Site::new();
        let mut witnesses = Vec::new();
        for name in ["witness.example/a", "witness.example/b"] {
            let dir = site.root.path().join("witness").join(name);
            let key = WitnessSecret::load_or_make(&dir, name).unwrap();
            site.trust.witnesses.push(key.key().clone());
            let certificate = site.keys.certificate().clone();
            witnesses.push(Witness::new(key, vec![certificate], &dir.join("cosigned")).unwrap());
        }
        Self { site, witnesses }
    }

    fn ask(&self, witness: usize, old: u64) -> Reply {
        let id = report_id(&self.site);
        let (note, head) = submit::published(&self.site.logs(), id).unwrap();
        let request = submit::request(&self.site.logs(), id, old, &note, &head).unwrap();
        self.witnesses[witness].add_checkpoint(&request.text(), 1_764_000_000)
    }
}

fn lines_of(reply: &Reply) -> String {
    let Reply::Cosigned(lines) = reply else { panic!("{reply:?}") };
    lines.clone()
}

#[test]
fn witnesses_cosign_what_continues_and_a_quorum_of_them_is_an_anchor() {
    let watched = Watched::new();
    let site = &watched.site;
    let log = site.open();
    record_n(&log, 7, Durability::Disk);
    log.close().unwrap();
    let id = report_id(site);
    let (note, head) = submit::published(&site.logs(), id).unwrap();
    let first = lines_of(&watched.ask(0, 0));
    let one = submit::cosigned(&note, &first, &site.trust.witnesses[0]).unwrap();
    assert!(cosign::anchor(&one, &site.trust).is_err(), "one of two is not more than half");
    let both = submit::cosigned(&one, &lines_of(&watched.ask(1, 0)), &site.trust.witnesses[1]).unwrap();
    let anchor = cosign::anchor(&both, &site.trust).unwrap();
    assert_eq!(anchor.size, head.size);
    let report = held(&site.logs(), &site.trust, std::slice::from_ref(&anchor));
    assert_eq!(report.exit_code(), 0, "{report}");
    // A cosignature of one witness twice is one.
    let twice = format!("{one}{first}");
    assert!(cosign::anchor(&twice, &site.trust).is_err());
    // Another text under the same cosignatures.
    let forged = both.replacen(&format!("\n{}\n", head.size), &format!("\n{}\n", head.size + 1), 1);
    assert!(cosign::anchor(&forged, &site.trust).is_err());
}

#[test]
fn a_witness_refuses_forks_rollbacks_strangers_and_nonsense() {
    let watched = Watched::new();
    let site = &watched.site;
    let log = site.open();
    record_n(&log, 4, Durability::Disk);
    log.close().unwrap();
    let id = report_id(site);
    let (note, head) = submit::published(&site.logs(), id).unwrap();
    let before = site.snapshot();
    assert!(matches!(watched.ask(0, 0), Reply::Cosigned(_)));
    assert_eq!(watched.ask(0, 0), Reply::Conflict(head.size), "it has seen more than nothing");
    assert!(matches!(watched.ask(0, head.size), Reply::Cosigned(_)), "the same again");
    let log = site.open();
    record_n(&log, 5, Durability::Disk);
    log.close().unwrap();
    let witness = &watched.witnesses[0];
    let (newer, newer_head) = submit::published(&site.logs(), id).unwrap();
    let request = |old| submit::request(&site.logs(), id, old, &newer, &newer_head).unwrap();
    let mut wrong = request(head.size);
    wrong.proof[0][0] ^= 1;
    assert_eq!(witness.add_checkpoint(&wrong.text(), 1), Reply::Inconsistent);
    wrong.proof.clear();
    assert_eq!(witness.add_checkpoint(&wrong.text(), 1), Reply::Inconsistent);
    let mut long = request(head.size);
    long.proof = vec![[0; 32]; 64];
    assert_eq!(witness.add_checkpoint(&long.text(), 1).status(), 400);
    // A fork: the snapshot goes on in another way, with the same keys.
    let forked = before.open();
    record_n(&forked, 9, Durability::Disk);
    forked.close().unwrap();
    assert!(matches!(watched.ask(0, head.size), Reply::Cosigned(_)), "the log itself goes on");
    let (fork, fork_head) = submit::published(&before.logs(), id).unwrap();
    assert!(fork_head.size > newer_head.size, "{} {}", fork_head.size, newer_head.size);
    let request = submit::request(&before.logs(), id, newer_head.size, &fork, &fork_head).unwrap();
    assert_eq!(witness.add_checkpoint(&request.text(), 1), Reply::Inconsistent);
    // The older checkpoint again: a rollback.
    let old = submit::request(&before.logs(), id, 0, &note, &head).unwrap();
    assert_eq!(witness.add_checkpoint(&old.text(), 1), Reply::Conflict(newer_head.size));
    // Signed by nobody who may.
    let parsed = Note::parse(&newer).unwrap();
    let unsigned = format!("{}\n\u{2014} x AAAAAAAA\n", parsed.text);
    let request = |checkpoint: &str| format!("old {}\n\n{checkpoint}", newer_head.size);
    assert_eq!(witness.add_checkpoint(&request(&unsigned), 1), Reply::NotSigned);
    let stranger = newer.replace("example.org/govrun", "example.org/other");
    assert_eq!(witness.add_checkpoint(&request(&stranger), 1), Reply::Unknown);
    for nonsense in ["", "old 1", "old 01\n\nx", "old -1\n\nx", "\n\n", &"x".repeat(100_000)] {
        assert_eq!(witness.add_checkpoint(nonsense, 1).status(), 400, "{nonsense:.20}");
    }
}

#[test]
fn a_witness_that_cannot_keep_its_state_signs_nothing() {
    let watched = Watched::new();
    let log = watched.site.open();
    record_n(&log, 2, Durability::Disk);
    log.close().unwrap();
    let state = watched.site.root.path().join("witness/witness.example/a/cosigned");
    std::fs::remove_dir(&state).unwrap();
    assert_eq!(watched.ask(0, 0).status(), 500);
    std::fs::create_dir(&state).unwrap();
    let id = report_id(&watched.site);
    std::fs::write(state.join(format!("{id}.checkpoint")), "damaged").unwrap();
    assert_eq!(watched.ask(0, 0).status(), 500, "a damaged state is not taken for none");
}

/// The example of <https://c2sp.org/tlog-cosignature> has this shape; its own key is not published.
#[test]
fn cosignatures_have_the_form_of_c2sp() {
    let dir = tempfile::tempdir().unwrap();
    let key = WitnessSecret::load_or_make(dir.path(), "witness.example/w1").unwrap();
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let line = key.cosign(text, 1_679_315_147);
    let note = format!("{text}\n{line}");
    let parsed = Note::parse(&note).unwrap();
    let [signature] = parsed.signatures.as_slice() else { panic!() };
    assert_eq!(signature.signature.len(), 72);
    assert_eq!(signature.signature[..8], 1_679_315_147_u64.to_be_bytes());
    let signed = format!("cosignature/v1\ntime 1679315147\n{text}");
    let public = key.key().public();
    assert!(govrun_audit::note::verify_strict(public, signed.as_bytes(), &signature.signature[8..]));
    assert_eq!(key.key().cosigned(&parsed), Some(1_679_315_147));
    assert_eq!(WitnessKey::parse(&key.key().to_string()).unwrap(), *key.key());
    let again = WitnessSecret::load_or_make(dir.path(), "witness.example/w1").unwrap();
    assert_eq!(again.key(), key.key());
}

fn prove(site: &Site, id: LogId, index: u64) -> (String, Vec<u8>) {
    let (note, head) = submit::published(&site.logs(), id).unwrap();
    let mut prover = Prover::inclusion(index, head.size).unwrap();
    let mut line = Vec::new();
    leaves(&site.logs(), id, |leaf, record| {
        prover.push(leaf);
        if record.head.seq == index {
            line.clone_from(&record.line);
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let extra = certified::condense(site.keys.certificate()).unwrap();
    let checkpoint = certified::without_epoch_signature(&note);
    let proof = Proof { extra, index, hashes: prover.finish().unwrap(), checkpoint };
    (proof.text(), line)
}

#[test]
fn every_record_can_be_proved_with_nothing_but_the_trust_file() {
    let (site, id, pin) = closed_and_pinned(20);
    for index in 0..pin.anchors()[0].size {
        let (proof, line) = prove(&site, id, index);
        let proved = certified::check(&proof, &line, &site.trust).unwrap();
        assert_eq!((proved.log, proved.index), (id, index));
        assert!(certified::check(&proof, &line[..line.len() - 1], &site.trust).is_err());
        let stranger = Site::new();
        let error = certified::check(&proof, &line, &stranger.trust).unwrap_err();
        assert!(error.is_untrusted(), "{error}");
    }
}

#[test]
fn no_byte_of_a_proof_can_be_changed() {
    let (site, id, _) = closed_and_pinned(20);
    let (proof, line) = prove(&site, id, 9);
    for at in 0..proof.len() {
        let mut forged = proof.clone().into_bytes();
        forged[at] ^= 1;
        let Ok(forged) = String::from_utf8(forged) else { continue };
        assert!(certified::check(&forged, &line, &site.trust).is_err(), "byte {at}");
    }
}

/// The proof of one of a million records, by the numbers: 20 hashes.
#[test]
fn a_proof_for_one_of_a_million_is_short() {
    let (site, id, _) = closed_and_pinned(2);
    let (proof, _) = prove(&site, id, 1);
    let mut parsed = Proof::parse(&proof).unwrap();
    parsed.index = 999_999;
    parsed.hashes = vec![[7; 32]; 20];
    parsed.checkpoint = parsed.checkpoint.replace("\nsynced ", "\nsynced 999999");
    assert!(parsed.text().len() <= 1_500, "{} bytes", parsed.text().len());
}

#[test]
fn restoring_the_trust_file_keeps_its_witnesses() {
    let watched = Watched::new();
    let file = watched.site.root.path().join("trust.toml");
    let trust = Trust { quorum: Some(2), ..watched.site.trust.clone() };
    trust.save(&file).unwrap();
    assert_eq!(Trust::load(&file).unwrap(), trust);
    let text = std::fs::read_to_string(&file).unwrap();
    for (from, to) in [("quorum = 2", "quorum = 0"), ("quorum = 2", "quorum = 3")] {
        std::fs::write(&file, text.replace(from, to)).unwrap();
        assert!(Trust::load(&file).is_err(), "{to}");
    }
    let key = Certificate::parse(site_cert(&watched.site).as_str()).unwrap().log().to_string();
    std::fs::write(&file, text.replace(&watched.site.trust.witnesses[0].to_string(), &key)).unwrap();
    assert!(Trust::load(&file).is_err(), "a log key is no witness key");
}

fn site_cert(site: &Site) -> String {
    site.keys.certificate().note().to_owned()
}
