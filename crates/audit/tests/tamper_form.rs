//! Tricks with the spelling, the size and the kind of file.
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

use govrun_audit::form::{FormError, Kind, Line, MAX_LINE, parse_line};
use govrun_audit::verify::{Level, verify};
use govrun_verdict::Durability;
use support::*;

fn closed_log() -> (Site, govrun_verdict::LogId, String) {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 2, Durability::Sealed);
    let id = log.id();
    log.close().unwrap();
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    (site, id, text)
}

/// The line of a decision after an edit, parsed as a verifier of level L0 parses it.
fn parsed(text: &str) -> Result<(), FormError> {
    match parse_line(text.as_bytes())? {
        Line::Record(frame) => frame.body_in(&mut Vec::new()).map(drop),
        Line::Seal(_) => Ok(()),
    }
}

fn decision_line(text: &str) -> String {
    text.lines().find(|l| l.contains("\"t\":\"decision\"")).unwrap().to_owned()
}

#[test]
fn only_one_spelling_of_a_record_is_accepted() {
    let (_site, _id, text) = closed_log();
    let line = decision_line(&text);
    assert_eq!(parsed(&line), Ok(()));
    let tricks: &[(&str, &str, &str)] = &[
        ("duplicate key", "\"decide_ns\":140", "\"decide_ns\":140,\"decide_ns\":140"),
        (
            "duplicate key, other case of value",
            "\"verdict\":\"allow\"",
            "\"verdict\":\"block\",\"verdict\":\"allow\"",
        ),
        ("unknown key", "\"decide_ns\":140", "\"decide_ns\":140,\"extra\":1"),
        (
            "key order",
            "\"verdict\":\"allow\",\"mode\":\"enforce\"",
            "\"mode\":\"enforce\",\"verdict\":\"allow\"",
        ),
        ("space after a colon", "\"decide_ns\":140", "\"decide_ns\": 140"),
        ("space after a comma", ",\"decide_ns\"", ", \"decide_ns\""),
        ("tab", "\"decide_ns\":140", "\"decide_ns\":140\t"),
        ("space at the end", "\"}", "\"} "),
        ("carriage return", "\"}", "\"}\r"),
        ("float", "\"decide_ns\":140", "\"decide_ns\":140.0"),
        ("exponent", "\"decide_ns\":140", "\"decide_ns\":14e1"),
        ("negative", "\"decide_ns\":140", "\"decide_ns\":-140"),
        ("leading zero", "\"decide_ns\":140", "\"decide_ns\":0140"),
        ("2^53", "\"decide_ns\":140", "\"decide_ns\":9007199254740992"),
        ("2^64", "\"decide_ns\":140", "\"decide_ns\":18446744073709551616"),
        ("string for a number", "\"decide_ns\":140", "\"decide_ns\":\"140\""),
        ("null for a missing field", "\"decide_ns\":140", "\"trace\":null,\"decide_ns\":140"),
        ("escaped letter", "\"agent\":\"finance-1\"", "\"agent\":\"\\u0066inance-1\""),
        ("escaped slash", "\"agent\":\"finance-1\"", "\"agent\":\"finance\\/1\""),
        ("escaped key", "\"agent\":", "\"\\u0061gent\":"),
        ("upper-case hex", "\"prev\":\"", "\"prev\":\"A"),
        ("unknown verdict", "\"verdict\":\"allow\"", "\"verdict\":\"permit\""),
        ("unknown action", "\"action\":\"tool.call\"", "\"action\":\"tool.calls\""),
        ("seq with a sign", "\"seq\":", "\"seq\":+"),
        ("seq with a zero", "\"seq\":", "\"seq\":0"),
        ("seq of 2^53", "\"seq\":", "\"seq\":900719925474099"),
        ("float in a value", "\"clear\":0", "\"clear\":0.5"),
        ("big integer in a value", "\"clear\":0", "\"clear\":9007199254740992"),
        ("decimal that is an integer", "\"clear\":0", "\"clear\":{\"$dec\":\"0\"}"),
        ("record that needs no wrapping", "\"clear\":0", "\"clear\":{\"$record\":{\"a\":1}}"),
        ("duplicate key in a value", "\"clear\":0", "\"clear\":{\"a\":1,\"a\":1}"),
        ("clear and committed", "\"clear\":0", "\"clear\":0,\"commitment\":\"00\""),
        ("byte order mark", "{\"v\"", "\u{feff}{\"v\""),
        ("version 01", "\"v\":1", "\"v\":01"),
        ("version as text", "\"v\":1", "\"v\":\"1\""),
    ];
    for (name, from, to) in tricks {
        assert!(line.contains(from), "{name}: nothing to change");
        let forged = line.replacen(from, to, 1);
        assert!(parsed(&forged).is_err(), "{name} was accepted: {forged}");
    }
    let mut bytes = line.clone().into_bytes();
    let at = line.find("finance").unwrap();
    bytes[at] = 0xff;
    assert!(
        match parse_line(&bytes).unwrap() {
            Line::Record(frame) => frame.body_in(&mut Vec::new()).is_err(),
            Line::Seal(_) => false,
        },
        "invalid UTF-8 was accepted"
    );
}

#[test]
fn only_one_spelling_of_a_seal_is_accepted() {
    let (_site, _id, text) = closed_log();
    let line = text.lines().find(|l| l.contains("\"t\":\"seal\"")).unwrap();
    assert_eq!(parsed(line), Ok(()));
    for (from, to) in [
        ("\"epoch\":0", "\"epoch\":0,\"epoch\":0"),
        ("\"epoch\":0", "\"epoch\": 0"),
        ("\"epoch\":0", "\"epoch\":0,\"more\":0"),
        ("==\"", "=\""),
        ("\"synced\":0", "\"synced\":0.0"),
        ("\"v\":1", "\"v\":2"),
    ] {
        assert!(line.contains(from), "{from}");
        assert!(parsed(&line.replacen(from, to, 1)).is_err(), "{to} was accepted");
    }
}

#[test]
fn crlf_line_ends_are_tampering() {
    let (site, id, text) = closed_log();
    let report = check_bytes(&site, id, text.replace('\n', "\r\n").as_bytes());
    assert_eq!(report.exit_code(), 1, "{report}");
}

#[test]
fn an_empty_file_and_a_missing_genesis_are_tampering_and_an_empty_directory_is_inconclusive() {
    let (site, id, text) = closed_log();
    for level in [Level::L0, Level::L1, Level::L2] {
        std::fs::write(site.segment(id), b"").unwrap();
        assert_eq!(check(&site, level).exit_code(), 1, "empty file at {level:?}");
    }
    let (_, without) = text.split_once('\n').unwrap();
    assert_eq!(check_bytes(&site, id, without.as_bytes()).exit_code(), 1, "no genesis");
    std::fs::remove_file(site.segment(id)).unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 1, "a log without its segment");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(verify(empty.path(), &site.trust, Level::L2).exit_code(), 3, "no log");
    assert_eq!(verify(&empty.path().join("none"), &site.trust, Level::L2).exit_code(), 2, "no directory");
}

#[test]
fn an_unknown_version_or_type_is_inconclusive_where_nothing_else_is_wrong() {
    let (site, id, text) = closed_log();
    // A line of another version as the very last: nothing after it contradicts it.
    let report = check_bytes(&site, id, format!("{text}{{\"v\":2,\"t\":\"later\"}}\n").as_bytes());
    assert_eq!(report.exit_code(), 3, "{report}");
    let report = check_bytes(&site, id, format!("{text}{{\"v\":1,\"t\":\"pulse\",\"seq\":9}}\n").as_bytes());
    assert_eq!(report.exit_code(), 3, "{report}");
    // In the middle it breaks the chain.
    let report = check_bytes(&site, id, text.replacen("\"t\":\"open\"", "\"t\":\"opem\"", 1).as_bytes());
    assert_eq!(report.exit_code(), 1, "{report}");
    for kind in Kind::ALL {
        let report = check_bytes(
            &site,
            id,
            text.replacen(&format!("\"t\":\"{}\"", kind.name()), "\"t\":\"x\"", 1).as_bytes(),
        );
        assert_eq!(
            report.exit_code() == 0,
            !text.contains(&format!("\"t\":\"{}\"", kind.name())),
            "{report}"
        );
    }
}

#[test]
fn a_huge_line_is_refused_without_reading_it_into_memory() {
    let (site, id, text) = closed_log();
    // Sparse: 1 GiB that takes no space.
    std::fs::write(site.segment(id), &text).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(site.segment(id)).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x\n", 1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"{", u64::try_from(text.len()).unwrap()).unwrap();
    let before = peak_memory_kib();
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 1, "{report}");
    assert!(report.to_string().contains("longer than a line may be"), "{report}");
    assert!(peak_memory_kib() - before < 64 * 1024, "the line was read into memory");
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_record_that_is_too_long_is_refused_and_the_log_goes_on() {
    let site = Site::new();
    let log = site.open();
    let mut big = call(payment("1"));
    big.session = "s".repeat(MAX_LINE).into();
    let error = record(&log, &big, &allow(Durability::Os)).unwrap_err();
    assert!(matches!(error, govrun_audit::AppendError::TooLarge { .. }), "{error}");
    record_n(&log, 1, Durability::Sealed);
    log.close().unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
}

#[test]
fn a_link_or_fifo_in_place_of_a_segment_is_refused() {
    let (site, id, _) = closed_log();
    let moved = site.root.path().join("moved.jsonl");
    std::fs::rename(site.segment(id), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, site.segment(id)).unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 2, "symbolic link");
    std::fs::remove_file(site.segment(id)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(site.segment(id)).status().unwrap();
    assert!(made.success());
    assert_eq!(check(&site, Level::L2).exit_code(), 2, "fifo");
    assert!(govrun_audit::Log::open(&site.logs(), &site.keys, TestClock::new()).is_err(), "the writer too");
}
