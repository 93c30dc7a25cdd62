//! `docs/verify.py` is a second verifier, written from the format document alone: it must agree, on what holds and on what
//! was tampered with. Skipped where there is no python3 of 3.11 or later.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and start python"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use govrun_audit::Trust;
use govrun_audit::verify::{Level, verify};
use govrun_verdict::Durability;
use support::*;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify.py")
}

fn python() -> bool {
    let there =
        Command::new("python3").args(["-c", "import tomllib"]).output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("SKIPPED: python3 with tomllib (3.11 or later) is not here");
    }
    there
}

fn second_opinion(logs: &Path, trust: &Path) -> (i32, String) {
    let out = Command::new("python3").arg(script()).arg(logs).arg(trust).output().unwrap();
    (
        out.status.code().unwrap(),
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
    )
}

#[test]
fn it_has_at_most_fifty_lines_and_imports_the_standard_library_only() {
    let text = std::fs::read_to_string(script()).unwrap();
    assert!(text.lines().count() <= 50, "{}", text.lines().count());
    let imports: Vec<&str> =
        text.lines().filter(|l| l.starts_with("import ") || l.starts_with("from ")).collect();
    assert_eq!(imports, ["import base64, functools, hashlib, json, pathlib, sys, tomllib"]);
}

#[test]
fn both_accept_the_worked_log() {
    if !python() {
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/worked");
    let (code, said) = second_opinion(&dir, &dir.join("trust.toml"));
    assert_eq!(code, 0, "{said}");
}

/// One log with every record type; one edit of each line, another kind from line to line, or with `GOVRUN_FORGERIES=all` each kind
/// of each line.
#[test]
fn both_say_the_same_of_every_tampered_log() {
    if !python() {
        return;
    }
    let (site, id) = log_of_everything(Size::Compact);
    let trust = site.root.path().join("full-trust.toml");
    site.trust.save(&trust).unwrap();
    let (code, said) = second_opinion(&site.logs(), &trust);
    assert_eq!(code, 0, "{said}");
    let whole = lines(&site.segment(id));
    let mut tried = 0;
    for (name, forged) in forgeries(&whole) {
        std::fs::write(site.segment(id), forged.concat()).unwrap();
        let report = verify(&site.logs(), &site.trust, Level::L2);
        let (code, said) = second_opinion(&site.logs(), &trust);
        assert_eq!(code == 0, report.exit_code() == 0, "{name}: {said}\n{report}");
        // The second verifier ends at the first thing it finds; this one goes on after a key that is not trusted.
        let mut found = report.logs.iter().flat_map(|log| &log.findings).map(|f| f.outcome.exit_code());
        assert!(code == 0 || found.any(|found| i32::from(found) == code), "{name}: {said}\n{report}");
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
}

fn forgeries(whole: &[Vec<u8>]) -> Vec<(String, Vec<Vec<u8>>)> {
    let all = std::env::var("GOVRUN_FORGERIES").is_ok_and(|asked| asked == "all");
    let mut out = Vec::new();
    for at in 0..whole.len() {
        let begin = out.len();
        let mut add =
            |name: &str, forged: Vec<Vec<u8>>| out.push((format!("{name} line {}", at + 1), forged));
        let mut forged = whole.to_vec();
        forged.remove(at);
        add("delete", forged);
        let mut forged = whole.to_vec();
        forged.insert(at, whole[at].clone());
        add("duplicate", forged);
        if at > 0 {
            let mut forged = whole.to_vec();
            forged.swap(at - 1, at);
            add("swap", forged);
        }
        let mut forged = whole.to_vec();
        let middle = forged[at].len() / 2;
        let digit =
            forged[at].iter().skip(middle).position(u8::is_ascii_digit).map_or(middle, |n| middle + n);
        forged[at][digit] = if forged[at][digit] == b'1' { b'2' } else { b'1' };
        add("edit", forged);
        if !all {
            let kept = out.swap_remove(begin + at % (out.len() - begin));
            out.truncate(begin);
            out.push(kept);
        }
    }
    let mut torn = whole.to_vec();
    torn.push(b"{\"v\":1,\"t\":\"deci".to_vec());
    out.push(("a torn line".to_owned(), torn));
    let mut carriage = whole.to_vec();
    carriage[1].insert(whole[1].len() - 1, b'\r');
    out.push(("CRLF".to_owned(), carriage));
    out
}

#[test]
fn both_distrust_a_stranger_and_find_nothing_inconclusive() {
    if !python() {
        return;
    }
    let site = Site::new();
    let log = site.open();
    record_n(&log, 2, Durability::Sealed);
    log.close().unwrap();
    let stranger = Site::new();
    let trust = stranger.root.path().join("keys/trust.toml");
    let ours = verify(&site.logs(), &Trust::load(&trust).unwrap(), Level::L2).exit_code();
    let (code, said) = second_opinion(&site.logs(), &trust);
    assert_eq!((code, ours), (4, 4), "{said}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(second_opinion(empty.path(), &trust).0, 3);
}
