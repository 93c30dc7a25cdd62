//! Keys, certificates, the trust file, and logs that are signed by somebody else.
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

use std::os::unix::fs::PermissionsExt as _;

use govrun_audit::verify::{Level, Outcome, verify};
use govrun_audit::*;
use govrun_verdict::{DecisionId, Durability, LogId, Timestamp};
use support::*;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn secret_keys_are_private_and_never_overwritten() {
    let site = Site::new();
    let dir = site.root.path().join("keys");
    assert_eq!(mode(&dir), 0o700);
    let id = site.open().id();
    let seed = format!("epochs/{id}.seed");
    for name in ["root.key", "log.key", "logs.key", &seed] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    let error = KeyStore::init(&dir, "example.org/govrun").unwrap_err();
    assert!(matches!(error, KeyError::Exists(_)), "{error}");
    // One file alone is enough to stop it, and nothing is written beside it.
    let other = site.root.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("logs.key"), "x").unwrap();
    assert!(KeyStore::init(&other, "example.org/govrun").is_err());
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_to_mend_it() {
    let site = Site::new();
    let dir = site.root.path().join("keys");
    for name in ["log.key", "logs.key"] {
        let path = dir.join(name);
        for bits in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bits)).unwrap();
            let error = KeyStore::load(&dir).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    KeyStore::load(&dir).unwrap();
    std::fs::remove_file(dir.join("root.key")).unwrap();
    KeyStore::load(&dir).expect("the root key belongs offline");
}

#[test]
fn keys_of_two_stores_do_not_mix() {
    let (a, b) = (Site::new(), Site::new());
    for name in ["log.key", "logs.pub", "genesis.cert"] {
        let dir = a.root.path().join("mixed").join(name);
        copy_dir(&a.root.path().join("keys"), &dir);
        std::fs::copy(b.root.path().join("keys").join(name), dir.join(name)).unwrap();
        assert!(KeyStore::load(&dir).is_err(), "{name} of another store was accepted");
    }
    let dir = a.root.path().join("swapped");
    copy_dir(&a.root.path().join("keys"), &dir);
    std::fs::copy(dir.join("root.key"), dir.join("log.key")).unwrap();
    assert!(KeyStore::load(&dir).is_err(), "a key in another role was accepted");
    let dir = a.root.path().join("seed");
    copy_dir(&a.root.path().join("keys"), &dir);
    std::fs::copy(b.root.path().join("keys/logs.key"), dir.join("logs.key")).unwrap();
    let error = Log::open(&a.logs(), &KeyStore::load(&dir).unwrap(), TestClock::new()).unwrap_err();
    assert!(matches!(error, OpenError::Key(KeyError::Mixed { .. })), "{error}");
}

#[test]
fn private_bytes_are_never_shown() {
    let site = Site::new();
    let dir = site.root.path().join("keys");
    let approver = ApproverKey::generate(&dir, "alice").unwrap();
    let log = site.open();
    let shown = format!("{:?} {:#?} {approver:?} {approver:#?} {log:?}", site.keys, site.keys);
    let seed = format!("epochs/{}.seed", log.id());
    for name in ["log.key", "logs.key", &seed, "root.key", "alice.approver.key"] {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        let seed = text.lines().next_back().unwrap().trim_start_matches("seed ");
        assert_eq!(seed.len(), 64);
        assert!(!shown.contains(seed), "{name}");
        let bytes = hex::decode(seed).unwrap();
        assert!(!shown.contains(&format!("{bytes:?}")), "{name}");
        assert!(!shown.contains(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)));
    }
    // Errors name files, never what is in them.
    std::fs::write(dir.join("log.key"), "govrun ed25519 secret key v1 log\nabcdefabcdef\n").unwrap();
    assert!(!KeyStore::load(&dir).unwrap_err().to_string().contains("abcdef"));
}

#[test]
fn origins_and_approver_names_have_one_form() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "a b", "a+b", "/a", "a/", "a//b", "A", "é", "a\nb", &"a".repeat(129)] {
        assert!(KeyStore::init(&dir.path().join("k"), bad).is_err(), "{bad:?}");
        assert!(ApproverKey::generate(dir.path(), bad).is_err(), "{bad:?}");
    }
    assert!(ApproverKey::generate(dir.path(), "../x").is_err());
}

#[test]
fn a_trust_file_round_trips_and_refuses_what_it_does_not_know() {
    let site = Site::new();
    let alice = ApproverKey::generate(site.root.path(), "alice").unwrap();
    let path = site.root.path().join("trust.toml");
    let approver =
        Approver { name: "alice".into(), key: alice.verifier().clone(), roles: vec!["treasury".into()] };
    let trust = Trust { approvers: vec![approver], ..site.trust.clone() };
    trust.save(&path).unwrap();
    assert_eq!(Trust::load(&path).unwrap(), trust);
    let text = std::fs::read_to_string(&path).unwrap();
    let bad = [
        text.replace("schema = 1", "schema = 2"),
        text.replace("schema = 1", "schema = 1\nextra = 1"),
        text.replace("roles", "role"),
        text.replace("example.org/govrun/root", "example.org/other/root"),
        text.replace("name = \"alice\"", "name = \"bob\""),
        text.clone() + &text[text.find("[[approver]]").unwrap()..],
        text.replacen('+', "-", 1),
    ];
    for bad in bad {
        std::fs::write(&path, &bad).unwrap();
        assert!(Trust::load(&path).is_err(), "{bad}");
    }
}

#[test]
fn a_log_signed_by_somebody_else_is_an_untrusted_key() {
    let (ours, theirs) = (Site::new(), Site::new());
    let log = theirs.open();
    record_n(&log, 2, Durability::Sealed);
    log.close().unwrap();
    assert_eq!(verify(&theirs.logs(), &theirs.trust, Level::L2).exit_code(), 0);
    let report = verify(&theirs.logs(), &ours.trust, Level::L2);
    assert_eq!(report.exit_code(), 4, "{report}");
    assert_eq!((report.logs[0].seals, &report.logs[0].last_seal), (0, &None), "no seal of it is called good");
    assert_eq!(verify(&theirs.logs(), &ours.trust, Level::L1).exit_code(), 0, "L1 looks at no key");
    let other = Trust { origin: "example.org/other".into(), ..theirs.trust.clone() };
    assert_eq!(verify(&theirs.logs(), &other, Level::L2).exit_code(), 4, "another origin");
}

/// Takes a genuine log, changes a verdict and signs everything anew: once under a genuine certificate with a key of its own,
/// once with the genesis record left alone.
#[test]
fn a_history_signed_again_with_ones_own_key_is_seen() {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 2, Durability::Sealed);
    let id = log.id();
    log.close().unwrap();
    let genuine = std::fs::read_to_string(site.segment(id)).unwrap();
    let own = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let genesis: serde_json::Value = serde_json::from_str(genuine.lines().next().unwrap()).unwrap();
    let epoch_key = genesis["epoch_key"].as_str().unwrap();
    let own_key = hex::encode(own.verifying_key().to_bytes());
    for forged_genesis in [true, false] {
        let mut text = genuine.replace("\"verdict\":\"allow\"", "\"verdict\":\"block\"");
        if forged_genesis {
            text = text.replace(epoch_key, &own_key);
        }
        let forged = resign(&text, &log_origin(&site.trust.origin, id), |_| own.clone());
        std::fs::write(site.segment(id), forged).unwrap();
        assert_eq!(check(&site, Level::L1).exit_code(), 0, "the forgery is well made");
        let report = check(&site, Level::L2);
        assert_eq!(report.exit_code(), 4, "{report}");
        assert!(report.logs[0].findings.iter().all(|f| f.outcome == Outcome::Untrusted), "{report}");
    }
}

/// The signature covers the root and nothing else of the records: everything that is not signed is made to fit a changed
/// record, the signed parts are left alone.
#[test]
fn records_rewritten_under_the_old_signatures_are_tampering() {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 2, Durability::Sealed);
    let id = log.id();
    log.close().unwrap();
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    let text = text.replacen("\"verdict\":\"allow\"", "\"verdict\":\"block\"", 1);
    let forged = rebuild(&text, |old, tree, after| {
        let mut seal = old.clone();
        seal.range = tree.range().iter().map(|h| form::Hex(*h)).collect();
        seal.after = form::Hex(after);
        seal
    });
    for level in [Level::L1, Level::L2] {
        std::fs::write(site.segment(id), &forged).unwrap();
        let report = check(&site, level);
        assert_eq!(report.exit_code(), 1, "{report}");
        assert!(report.to_string().contains("the records are not those that were sealed"), "{report}");
    }
}

/// Rebuild chain, tree and seals of a changed log with other keys.
fn resign(text: &str, origin: &str, key: impl Fn(u64) -> ed25519_dalek::SigningKey) -> Vec<u8> {
    rebuild(text, |old, tree, after| {
        let key = key(old.epoch.0);
        let verifier = note::VerifierKey::new(origin, key.verifying_key().to_bytes()).unwrap();
        form::SealLine::sign(old.epoch.0, &verifier, &key, tree, old.synced.0, after)
    })
}

fn rebuild(
    text: &str,
    reseal: impl Fn(&form::SealLine, &hash::Tree, hash::Hash) -> form::SealLine,
) -> Vec<u8> {
    use govrun_audit::form::{Line, begin_line, end_line, parse_line};
    let (mut prev, mut after, mut due) = (hash::NOTHING, hash::NOTHING, false);
    let mut trees = vec![hash::Tree::default()];
    let mut out = Vec::new();
    for line in text.lines() {
        let mut forged = Vec::new();
        match parse_line(line.as_bytes()).unwrap() {
            Line::Record(frame) => {
                begin_line(&mut forged, &frame.head);
                forged.extend_from_slice(frame.body);
                end_line(&mut forged, due.then_some(&after), &prev);
                prev = hash::leaf(&forged);
                let mut tree = trees.last().unwrap().clone();
                tree.push(prev);
                trees.push(tree);
                due = false;
            }
            Line::Seal(seal) => {
                // A seal may stand behind a record that it does not cover.
                let tree = &trees[usize::try_from(seal.size.0).unwrap()];
                forged = reseal(&seal, tree, after).line().unwrap();
                after = hash::seal(&forged);
                due = true;
            }
        }
        out.extend(forged);
        out.push(b'\n');
    }
    out
}

/// A closed log with every event of an approval in its first epoch, and what a thief could have found while it was open.
fn robbed_log() -> (Site, LogId, Thief) {
    let mut site = Site::new();
    let approver = ApproverKey::generate(site.root.path(), "alice").unwrap();
    let (key, roles) = (approver.verifier().clone(), vec!["treasury".into()]);
    site.trust.approvers.push(Approver { name: "alice".into(), key, roles });
    let clock = TestClock::new();
    let log = Log::open(&site.logs(), &site.keys, clock.clone()).unwrap();
    record_everything(&site, &log, &clock, &approver, Size::Compact);
    let (id, thief) = (log.id(), site.steal(log.id()));
    log.close().unwrap();
    (site, id, thief)
}

/// Who holds the epoch key can rewrite what it signed, and the report says so; what an approver signed stays out of reach.
#[test]
fn the_epoch_key_does_not_forge_an_approval() {
    let (site, id, thief) = robbed_log();
    let genuine = std::fs::read_to_string(site.segment(id)).unwrap();
    let origin = log_origin(&site.trust.origin, id);
    let code = |from: &str, to: &str| {
        assert!(genuine.contains(from), "{from}");
        let forged = resign(&genuine.replacen(from, to, 1), &origin, |epoch| thief.key(epoch));
        check_bytes(&site, id, &forged)
    };
    let rewritten = code("\"verdict\":\"allow\"", "\"verdict\":\"block\"");
    assert_eq!(rewritten.exit_code(), 0);
    assert!(rewritten.to_string().contains("a history rewritten by whoever holds the epoch key"));
    for (from, to) in [
        ("\"event\":\"approved\"", "\"event\":\"denied\""),
        ("\"ticket\":\"ap-1\",\"event\":\"approved\"", "\"ticket\":\"ap-2\",\"event\":\"approved\""),
        ("\"event\":\"approved\",\"binding\":\"05", "\"event\":\"approved\",\"binding\":\"06"),
        ("\"approver\":\"alice\"", "\"approver\":\"bob\""),
        // Nor does it make a history that contradicts itself.
        ("\"seq\":6,\"time\":1764", "\"seq\":6,\"time\":1763"),
        ("\"to\":1763", "\"to\":1762"),
        ("\"t\":\"clock_step\"", "\"t\":\"close\""),
        ("\"t\":\"key_epoch\"", "\"t\":\"close\""),
        ("\"epoch\":1,\"key\"", "\"epoch\":2,\"key\""),
        ("\"event\":\"consumed\"", "\"event\":\"expired\""),
    ] {
        let report = code(from, to);
        assert_eq!(report.exit_code(), 1, "{to}: {report}");
    }
}

/// The thief comes one epoch later. Nothing that he finds signs what was signed before he came, in whatever way he uses it.
#[test]
fn a_thief_cannot_rewrite_the_epochs_before_he_came() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 3, Durability::Sealed);
    log.rotate().unwrap();
    record_n(&log, 3, Durability::Sealed);
    let thief = site.steal(id);
    assert_eq!(thief.epoch, 1);
    log.close().unwrap();
    let genuine = std::fs::read_to_string(site.segment(id)).unwrap();
    let origin = log_origin(&site.trust.origin, id);
    let log_key = std::fs::read_to_string(site.root.path().join("keys/log.key")).unwrap();
    let log_key = hex::decode(log_key.lines().nth(1).unwrap()).unwrap();
    let log_key = ed25519_dalek::SigningKey::from_bytes(&log_key.try_into().unwrap());
    let early = genuine.replacen("\"verdict\":\"allow\"", "\"verdict\":\"block\"", 1);
    let from = genuine.find("\"t\":\"key_epoch\"").unwrap();
    let late = genuine[..from].to_owned()
        + &genuine[from..].replacen("\"verdict\":\"allow\"", "\"verdict\":\"block\"", 1);
    // What he does have: the epoch he came in. The report always says so.
    let report = check_bytes(
        &site,
        id,
        &resign(&late, &origin, |epoch| if epoch == 0 { own() } else { thief.key(epoch) }),
    );
    assert_ne!(report.exit_code(), 0, "seals of the first epoch cannot be made anew");
    let tries: Vec<(&str, Vec<u8>)> = vec![
        (
            "his own key for the old epoch",
            resign(&early, &origin, |e| if e == 0 { own() } else { thief.key(e) }),
        ),
        ("the stolen key for the old epoch", resign(&early, &origin, |e| thief.key(e.max(1)))),
        (
            "the log key for the old epoch",
            resign(&early, &origin, |e| if e == 0 { log_key.clone() } else { thief.key(e) }),
        ),
        (
            "old seals relabelled",
            resign(&early.replace("\"epoch\":0,\"origin\"", "\"epoch\":1,\"origin\""), &origin, |e| {
                thief.key(e)
            }),
        ),
        ("the first epoch's key named as the stolen one", {
            let first: serde_json::Value = serde_json::from_str(genuine.lines().next().unwrap()).unwrap();
            let stolen = hex::encode(thief.key(1).verifying_key().to_bytes());
            let text = early.replace(first["epoch_key"].as_str().unwrap(), &stolen);
            resign(&text, &origin, |e| thief.key(e.max(1)))
        }),
    ];
    for (what, forged) in tries {
        let report = check_bytes(&site, id, &forged);
        assert!([1, 4].contains(&report.exit_code()), "{what}: {report}");
    }
    // Nor does he begin the log anew with keys that were never used: they are certified for another id.
    let other = site.snapshot();
    std::fs::remove_dir_all(other.logs()).unwrap();
    let forged = other.open();
    record_n(&forged, 1, Durability::Sealed);
    let forged_id = forged.id();
    forged.close().unwrap();
    let text = std::fs::read_to_string(other.segment(forged_id)).unwrap();
    std::fs::remove_dir_all(site.logs()).unwrap();
    std::fs::create_dir_all(site.segment(id).parent().unwrap()).unwrap();
    let text = text.replace(&forged_id.to_string(), &id.to_string());
    let stolen = site.snapshot().root.path().join("keys/epochs").join(format!("{forged_id}.seed"));
    assert!(!stolen.exists(), "the thief's copy has it, the site does not");
    let report = check_bytes(&site, id, &resign(&text, &origin, |_| own()));
    assert_eq!(report.exit_code(), 4, "{report}");
}

fn own() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[9; 32])
}

/// What is done to the seeds: there is one on disk, and it is the one that signs next.
#[test]
fn the_seed_of_an_epoch_is_erased_when_the_epoch_ends() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    let mut seen = Vec::new();
    for epoch in 0..4 {
        let thief = site.steal(id);
        assert_eq!(thief.epoch, epoch);
        let key = hex::encode(thief.key(epoch).verifying_key().to_bytes());
        assert!(!seen.contains(&key), "a key is used twice");
        seen.push(key);
        record_n(&log, 1, Durability::Os);
        log.rotate().unwrap();
    }
    log.close().unwrap();
    assert_eq!(site.steal(id).epoch, 5, "closing ends an epoch too");
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    // No file of the key directory holds an earlier seed.
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    for key in &seen {
        assert!(text.contains(key), "the log names the key of every epoch");
    }
    let files = std::fs::read_dir(site.root.path().join("keys/epochs")).unwrap().count();
    assert_eq!(files, 2, "one seed and one lock");
}

/// Forty times an epoch: the tree that the root certified has 32 keys, the next is signed by the log key.
#[test]
fn when_the_certified_keys_run_out_the_next_tree_takes_over() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    for _ in 0..20 {
        record_n(&log, 1, Durability::Os);
        log.rotate().unwrap();
    }
    drop(log);
    let log = site.open();
    assert_eq!(log.id(), id);
    for _ in 0..20 {
        record_n(&log, 1, Durability::Sealed);
        log.rotate().unwrap();
    }
    log.close().unwrap();
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    let tree = text.lines().filter(|l| l.contains("\"tree\":{\"count\":256")).collect::<Vec<_>>();
    assert_eq!(tree.len(), 1);
    assert!(tree[0].contains("\"epoch\":32,"), "{}", tree[0]);
    // A tree that the log key did not sign is nobody's.
    let sig = tree[0].split("\"sig\":\"").nth(1).unwrap().split('"').next().unwrap();
    let thief = site.steal(id);
    let forged = text.replacen(sig, &sig.chars().rev().collect::<String>(), 1);
    assert_ne!(check_bytes(&site, id, forged.as_bytes()).exit_code(), 0);
    assert!(thief.epoch > 40);
}

#[test]
fn a_log_taken_back_to_an_earlier_state_is_not_continued() {
    let site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 3, Durability::Disk);
    let earlier = site.snapshot();
    log.rotate().unwrap();
    log.close().unwrap();
    let before = std::fs::read(earlier.segment(id)).unwrap();
    std::fs::write(site.segment(id), &before).unwrap();
    let error = Log::open(&site.logs(), &site.keys, TestClock::new()).unwrap_err().to_string();
    assert!(error.contains("ends in epoch 0, but its keys are in epoch 2"), "{error}");
    assert_eq!(std::fs::read(site.segment(id)).unwrap(), before, "nothing was written");
    // Without its seed it is not continued either.
    std::fs::remove_file(site.root.path().join("keys/epochs").join(format!("{id}.seed"))).unwrap();
    assert!(matches!(Log::open(&site.logs(), &site.keys, TestClock::new()), Err(OpenError::NoSeed(_))));
}

#[test]
fn a_copied_directory_is_not_written_while_the_log_is_open() {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 1, Durability::Disk);
    let copy = site.root.path().join("copy");
    copy_dir(&site.logs(), &copy);
    let second = Log::open(&copy, &site.keys, TestClock::new()).unwrap();
    assert_ne!(second.id(), log.id(), "two writers would use the keys of one log");
    second.close().unwrap();
    log.close().unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
}

#[test]
fn renewed_keys_begin_new_logs_and_leave_the_old_ones_verifiable() {
    let site = Site::new();
    let log = site.open();
    let old = log.id();
    record_n(&log, 2, Durability::Os);
    log.close().unwrap();
    let dir = site.root.path().join("keys");
    let other = Site::new();
    let error = KeyStore::renew(&dir, &other.root.path().join("keys/root.key")).unwrap_err();
    assert!(matches!(error, KeyError::OtherRoot(_)), "{error}");
    let before = std::fs::read(dir.join("log.key")).unwrap();
    let keys = KeyStore::renew(&dir, &dir.join("root.key")).unwrap();
    assert_ne!(std::fs::read(dir.join("log.key")).unwrap(), before);
    assert_eq!(KeyStore::load(&dir).unwrap().certificate(), keys.certificate());
    let log = Log::open(&site.logs(), &keys, TestClock::new()).unwrap();
    assert_ne!(log.id(), old);
    record_n(&log, 2, Durability::Os);
    log.close().unwrap();
    let report = check(&site, Level::L2);
    assert_eq!((report.exit_code(), report.logs.len()), (0, 2), "{report}");
}

#[test]
fn every_certified_log_can_be_begun_and_then_no_more() {
    let site = Site::new();
    let logs = usize::try_from(site.keys.certificate().logs()).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for i in 0..logs {
        let dir = site.root.path().join("many").join(i.to_string());
        let log = Log::open(&dir, &site.keys, TestClock::new()).unwrap();
        ids.insert(log.id());
        log.close().unwrap();
        if i + 1 == logs {
            assert_eq!(verify(&dir, &site.trust, Level::L2).exit_code(), 0, "the last one too");
        }
    }
    assert_eq!(ids.len(), logs);
    assert_eq!(site.keys.begun().unwrap(), site.keys.certificate().logs());
    let error = Log::open(&site.logs(), &site.keys, TestClock::new()).unwrap_err();
    assert!(error.to_string().contains("govrun keys renew"), "{error}");
}

#[test]
fn what_lies_beyond_a_revocation_is_not_believed() {
    let mut site = Site::new();
    let log = site.open();
    let id = log.id();
    record_n(&log, 2, Durability::Sealed);
    log.close().unwrap();
    let size = check(&site, Level::L2).logs[0].records;
    site.trust.revoke(id, size);
    assert_eq!(check(&site, Level::L2).exit_code(), 0, "everything lies before it");
    site.trust.revoke(id, size - 1);
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 4, "{report}");
    assert!(report.to_string().contains("its keys were revoked"), "{report}");
    site.trust.revoke(id, size);
    assert_eq!(site.trust.revoked_at(id), Some(size - 1), "a revocation is never taken back by another");
    let path = site.root.path().join("revoked.toml");
    site.trust.save(&path).unwrap();
    assert_eq!(Trust::load(&path).unwrap(), site.trust);
    let text = std::fs::read_to_string(&path).unwrap();
    let again = text.clone() + &text[text.find("[[revoked]]").unwrap()..];
    std::fs::write(&path, again).unwrap();
    assert!(Trust::load(&path).is_err(), "listed twice");
}

fn statement(site: &Site) -> ApprovalStatement {
    ApprovalStatement {
        origin: site.trust.origin.clone(),
        ticket: "ap-1".into(),
        decision: DecisionId { log: LogId([1; 8]), seq: 3 },
        answer: Answer::Approve,
        binding: [4; 32],
        at: Timestamp(T0),
    }
}

#[test]
fn an_approval_holds_for_exactly_one_call() {
    let site = Site::new();
    let dir = site.root.path().join("approvers");
    let alice = ApproverKey::generate(&dir, "alice").unwrap();
    let loaded = ApproverKey::load(&dir.join("alice.approver.key"), "alice").unwrap();
    assert_eq!(loaded.verifier(), alice.verifier());
    assert!(ApproverKey::load(&dir.join("alice.approver.key"), "bob").is_err(), "the role is in the file");
    let good = alice.sign(statement(&site));
    assert!(good.verifies());
    let s = statement(&site);
    let others = [
        ApprovalStatement { origin: "example.org/x".into(), ..s.clone() },
        ApprovalStatement { ticket: "ap-2".into(), ..s.clone() },
        ApprovalStatement { decision: DecisionId { seq: 4, ..s.decision }, ..s.clone() },
        ApprovalStatement { answer: Answer::Deny, ..s.clone() },
        ApprovalStatement { binding: [5; 32], ..s.clone() },
        ApprovalStatement { at: Timestamp(T0 + 1), ..s.clone() },
    ];
    for statement in others {
        assert!(!SignedApproval { statement, ..good.clone() }.verifies());
    }
    let sneaky = ApprovalStatement { ticket: "ap-1\nanswer deny".into(), ..s };
    assert_eq!(sneaky.text().lines().count(), 7, "no field breaks into another line");
}

#[test]
fn the_log_takes_no_approval_that_does_not_hold() {
    let site = Site::new();
    let log = site.open();
    let alice = ApproverKey::generate(site.root.path(), "alice").unwrap();
    let signed = alice.sign(statement(&site));
    let entry = ApprovalEntry {
        decision: signed.statement.decision,
        ticket: "ap-1",
        event: ApprovalEvent::Approved,
        binding: [4; 32],
        signed: Some(&signed),
        used_by: None,
    };
    let forged = SignedApproval { signature: [1; 64], ..signed.clone() };
    let bad = [
        ApprovalEntry { signed: None, ..entry },
        ApprovalEntry { event: ApprovalEvent::Denied, ..entry },
        ApprovalEntry { event: ApprovalEvent::Expired, ..entry },
        ApprovalEntry { binding: [5; 32], ..entry },
        ApprovalEntry { ticket: "ap-2", ..entry },
        ApprovalEntry { ticket: "", ..entry },
        ApprovalEntry { signed: Some(&forged), ..entry },
    ];
    for bad in bad {
        assert!(matches!(log.approval(&bad), Err(AppendError::Invalid(_))), "{bad:?}");
    }
    log.approval(&entry).unwrap();
    log.close().unwrap();
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 4, "alice is not in the trust file: {report}");
    let mut site = site;
    let key = alice.verifier().clone();
    site.trust.approvers.push(Approver { name: "alice".into(), key, roles: vec![] });
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
}
