//! Attacks on what a finished log says: every one of them must be seen, and be called by its name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;

use govrun_audit::form::Kind;
use govrun_audit::verify::{Ask, Form, Level, Outcome, verify, verify_asked};
use govrun_verdict::Durability;
use support::*;

fn small_log() -> (Site, govrun_verdict::LogId, Vec<Vec<u8>>) {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 3, Durability::Sealed);
    record_n(&log, 3, Durability::Os);
    let id = log.id();
    log.close().unwrap();
    let lines = lines(&site.segment(id));
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
    (site, id, lines)
}

fn is_seal(line: &[u8]) -> bool {
    line.starts_with(b"{\"v\":1,\"t\":\"seal\"")
}

#[test]
fn the_log_of_everything_holds_every_type_and_verifies() {
    for size in [Size::Compact, Size::Full] {
        holds_every_type(size);
    }
}

fn holds_every_type(size: Size) {
    let (site, id) = log_of_everything(size);
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    for kind in Kind::ALL {
        assert!(text.contains(&format!("\"t\":\"{}\"", kind.name())), "{} is missing", kind.name());
    }
}

/// One bit of every byte of a log with every record type, another one from byte to byte; with `GOVRUN_FLIPS=all` every bit of
/// every byte, which takes some minutes. The fast form of L1 sees nearly all of them; the
/// signatures are only looked at for the flips that it lets pass.
#[test]
fn every_flipped_bit_is_seen() {
    let (site, id) = log_of_everything(Size::Compact);
    let bytes = std::fs::read(site.segment(id)).unwrap();
    let half = bytes.len() / 2;
    let all = std::env::var("GOVRUN_FLIPS").is_ok_and(|flips| flips == "all");
    std::thread::scope(|scope| {
        for part in [0..half, half..bytes.len()] {
            let (bytes, site) = (&bytes, &site);
            scope.spawn(move || {
                let dir = tempfile::tempdir().unwrap();
                let segment = dir.path().join(id.to_string()).join("00000001.jsonl");
                std::fs::create_dir(segment.parent().unwrap()).unwrap();
                std::fs::write(&segment, bytes).unwrap();
                let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
                for at in part {
                    for bit in (0..8).filter(|bit| all || *bit == at % 8) {
                        file.write_all_at(&[bytes[at] ^ (1 << bit)], at as u64).unwrap();
                        let fast = Ask { form: Form::Relied, ..Ask::level(Level::L1) };
                        let seen = verify_asked(dir.path(), &site.trust, &fast).exit_code() != 0
                            || verify(dir.path(), &site.trust, Level::L2).exit_code() != 0;
                        assert!(seen, "bit {bit} of byte {at} is not covered");
                    }
                    file.write_all_at(&bytes[at..=at], at as u64).unwrap();
                }
            });
        }
    });
}

/// The scalars of a JSON line: where each value stands, and its path of field names (list places left out).
fn scalars(line: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let mut out = Vec::new();
    let mut at = 0;
    walk(line, &mut at, "", &mut out);
    out
}

fn walk(line: &[u8], at: &mut usize, path: &str, out: &mut Vec<(String, std::ops::Range<usize>)>) {
    match line[*at] {
        b'{' => {
            *at += 1;
            while line[*at] != b'}' {
                let start = *at + 1;
                skip(line, at);
                let name = std::str::from_utf8(&line[start..*at - 1]).unwrap();
                *at += 1;
                walk(line, at, &format!("{path}/{name}"), out);
                if line[*at] == b',' {
                    *at += 1;
                }
            }
            *at += 1;
        }
        b'[' => {
            *at += 1;
            out.push((format!("{path}[]"), *at..*at));
            while line[*at] != b']' {
                walk(line, at, path, out);
                if line[*at] == b',' {
                    *at += 1;
                }
            }
            *at += 1;
        }
        _ => {
            let start = *at;
            skip(line, at);
            out.push((path.to_owned(), start..*at));
        }
    }
}

fn skip(line: &[u8], at: &mut usize) {
    if line[*at] == b'"' {
        *at += 1;
        while line[*at] != b'"' {
            *at += if line[*at] == b'\\' { 2 } else { 1 };
        }
        *at += 1;
    } else {
        while !b",]}".contains(&line[*at]) {
            *at += 1;
        }
    }
}

/// A different value of the same kind.
fn other(value: &[u8]) -> Vec<u8> {
    match value {
        b"true" => b"false".to_vec(),
        b"false" => b"true".to_vec(),
        b"null" => b"\"x\"".to_vec(),
        [b'"', .., b'"'] => {
            let mut v = value.to_vec();
            let last = v.len() - 2;
            match v[last] {
                b'"' => v.insert(1, b'x'),
                b'0' => v[last] = b'1',
                b'=' | b'n' => v.insert(1, b'0'),
                _ => v[last] = b'0',
            }
            v
        }
        number => (std::str::from_utf8(number).unwrap().parse::<u64>().unwrap() + 1).to_string().into_bytes(),
    }
}

/// Change one value of one field after the other, and the hashes with it where an editor could: whatever the schema holds is
/// under the signature.
#[test]
fn no_field_is_outside_the_hash() {
    let (site, id) = log_of_everything(Size::Full);
    let lines = lines(&site.segment(id));
    let mut tried: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // The log has 34 epochs: one field of one type is changed so often and no more.
    const MOST: u32 = 16;
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let text = &line[..line.len() - 1];
        let kind =
            serde_json::from_slice::<serde_json::Value>(text).unwrap()["t"].as_str().unwrap().to_owned();
        for (path, range) in scalars(text) {
            tried.entry(kind.clone()).or_default().insert(path.replace("[]", ""));
            let times = times.entry(format!("{kind}{path}")).or_insert(0);
            *times += 1;
            if path.ends_with("[]") || *times > MOST {
                continue;
            }
            let mut changed = text[..range.start].to_vec();
            changed.extend(other(&text[range.clone()]));
            changed.extend(&text[range.end..]);
            changed.push(b'\n');
            let mut bytes = lines[..index].concat();
            bytes.extend(changed);
            bytes.extend(lines[index + 1..].concat());
            let report = check_bytes(&site, id, &bytes);
            assert_ne!(report.exit_code(), 0, "{kind}{path} is outside the hash");
        }
    }
    std::fs::write(site.segment(id), lines.concat()).unwrap();
    every_field_of_the_schema_was_tried(&lines, &tried);
}

/// Asks the schema itself: an unknown field at any place of any record makes the parser list the fields it knows.
fn every_field_of_the_schema_was_tried(lines: &[Vec<u8>], tried: &BTreeMap<String, BTreeSet<String>>) {
    use govrun_audit::form::{FormError, Line, SealLine, parse_line};
    let mut asked = BTreeSet::new();
    for line in lines {
        let text = &line[..line.len() - 1];
        let kind =
            serde_json::from_slice::<serde_json::Value>(text).unwrap()["t"].as_str().unwrap().to_owned();
        let (body, offset) = match parse_line(text).unwrap() {
            Line::Record(frame) => (frame.body.to_vec(), Some(frame)),
            Line::Seal(_) => (text[1..text.len() - 1].to_vec(), None),
        };
        let object = [b"{", body.as_slice(), b"}"].concat();
        for (path, at) in objects(&object) {
            let mut probed = object[..at].to_vec();
            probed.extend(b"\"zz\":1,");
            probed.extend(&object[at..]);
            let error = match &offset {
                Some(frame) => {
                    govrun_audit::form::Body::parse(frame.head.kind, &probed).map(drop).unwrap_err()
                }
                None => SealLine::parse(&probed).map(drop).unwrap_err(),
            };
            let FormError::Body(message) = error else { panic!("{error}") };
            let Some((_, expected)) = message.split_once("expected ") else { continue };
            asked.insert((kind.clone(), path.clone()));
            for field in expected.split('`').skip(1).step_by(2) {
                let path = format!("{path}/{field}");
                let seen = tried[&kind].iter().any(|t| *t == path || t.starts_with(&format!("{path}/")));
                assert!(seen, "the sample log has no {kind}{path}, so it was not tried");
            }
        }
    }
    assert!(asked.len() > 25, "the schema was hardly asked: {asked:?}");
}

/// Where each object that belongs to the schema begins (after its brace), with its path. Values of guests are not schema.
fn objects(json: &[u8]) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    let mut at = 0;
    find_objects(json, &mut at, "", &mut out);
    out.retain(|(path, _)| !path.ends_with("/clear"));
    out
}

fn find_objects(json: &[u8], at: &mut usize, path: &str, out: &mut Vec<(String, usize)>) {
    match json[*at] {
        b'{' => {
            *at += 1;
            out.push((path.to_owned(), *at));
            while json[*at] != b'}' {
                let start = *at + 1;
                skip(json, at);
                let name = std::str::from_utf8(&json[start..*at - 1]).unwrap().to_owned();
                *at += 1;
                find_objects(json, at, &format!("{path}/{name}"), out);
                if json[*at] == b',' {
                    *at += 1;
                }
            }
            *at += 1;
        }
        b'[' => {
            *at += 1;
            while json[*at] != b']' {
                find_objects(json, at, path, out);
                if json[*at] == b',' {
                    *at += 1;
                }
            }
            *at += 1;
        }
        _ => skip(json, at),
    }
}

#[test]
fn an_edited_verdict_is_tampering_with_both_hashes_and_the_place() {
    let (site, id, lines) = small_log();
    let at = lines.iter().position(|l| l.windows(8).any(|w| w == b"decision")).unwrap();
    let mut forged = lines.clone();
    forged[at] = String::from_utf8(forged[at].clone())
        .unwrap()
        .replace("\"verdict\":\"allow\"", "\"verdict\":\"block\"")
        .into_bytes();
    let report = check_bytes(&site, id, &forged.concat());
    assert_eq!(report.exit_code(), 1);
    let text = report.to_string();
    let finding = &report.logs[0].findings[0];
    let place = finding.place.as_ref().unwrap();
    assert_eq!(place.segment, "00000001.jsonl");
    assert!(place.line as usize > at, "{text}");
    assert!(finding.expected.is_some() && finding.found.is_some(), "{text}");
    assert!(text.contains("last good seal: size 2"), "{text}");
}

#[test]
fn a_deleted_record_is_tampering() {
    let (site, id, lines) = small_log();
    for at in 0..lines.len() {
        let mut forged = lines.clone();
        forged.remove(at);
        let report = check_bytes(&site, id, &forged.concat());
        let cut = at + 1 == lines.len();
        assert_eq!(report.exit_code(), u8::from(!cut), "line {at}: {report}");
    }
}

#[test]
fn a_duplicated_line_is_tampering() {
    let (site, id, lines) = small_log();
    for at in 0..lines.len() {
        let mut forged = lines.clone();
        forged.insert(at, lines[at].clone());
        assert_eq!(check_bytes(&site, id, &forged.concat()).exit_code(), 1, "line {at}");
    }
}

#[test]
fn reordered_lines_are_tampering() {
    let (site, id, lines) = small_log();
    for at in 1..lines.len() {
        let mut forged = lines.clone();
        forged.swap(at - 1, at);
        assert_eq!(check_bytes(&site, id, &forged.concat()).exit_code(), 1, "lines {} and {at}", at - 1);
    }
}

#[test]
fn lines_spliced_in_from_another_log_are_tampering() {
    let (site, id, lines) = small_log();
    let (_other, _, others) = small_log();
    for at in 0..lines.len() {
        let mut forged = lines.clone();
        forged[at] = others[at].clone();
        assert_ne!(check_bytes(&site, id, &forged.concat()).exit_code(), 0, "line {at}");
        let mut forged = lines.clone();
        forged.insert(at, others[at].clone());
        assert_ne!(check_bytes(&site, id, &forged.concat()).exit_code(), 0, "line {at} inserted");
    }
}

#[test]
fn a_stripped_seal_is_tampering() {
    let (site, id, lines) = small_log();
    let seals: Vec<usize> = (0..lines.len()).filter(|i| is_seal(&lines[*i])).collect();
    for at in &seals[..seals.len() - 1] {
        let mut forged = lines.clone();
        forged.remove(*at);
        assert_eq!(check_bytes(&site, id, &forged.concat()).exit_code(), 1, "seal in line {at}");
    }
    let mut forged = lines.clone();
    forged.retain(|line| !is_seal(line));
    assert_ne!(check_bytes(&site, id, &forged.concat()).exit_code(), 0, "all seals");
}

#[test]
fn a_copied_seal_is_tampering() {
    let (site, id, lines) = small_log();
    let seals: Vec<usize> = (0..lines.len()).filter(|i| is_seal(&lines[*i])).collect();
    for from in &seals {
        for to in 0..=lines.len() {
            let mut forged = lines.clone();
            forged.insert(to, lines[*from].clone());
            assert_eq!(check_bytes(&site, id, &forged.concat()).exit_code(), 1, "seal {from} copied to {to}");
        }
    }
}

#[test]
fn an_altered_seal_is_tampering_even_as_the_last_line() {
    let (site, id, lines) = small_log();
    let seals: Vec<usize> = (0..lines.len()).filter(|i| is_seal(&lines[*i])).collect();
    let text = |i: usize| String::from_utf8(lines[i].clone()).unwrap();
    let part = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap();
        let end = rest.find(",\"").or_else(|| rest.find('}')).unwrap();
        format!("\"{name}\":{}", &rest[..end])
    };
    // Well-formed parts of other seals: only what the seal means can tell.
    for at in &seals {
        for from in seals.iter().filter(|from| *from != at) {
            for name in ["size", "root", "synced", "range", "after", "sig"] {
                let (here, there) = (part(&text(*at), name), part(&text(*from), name));
                if here == there {
                    continue;
                }
                let mut forged = lines.clone();
                forged[*at] = text(*at).replace(&here, &there).into_bytes();
                let report = check_bytes(&site, id, &forged.concat());
                assert_eq!(report.exit_code(), 1, "{name} of seal {from} in seal {at}: {report}");
            }
        }
    }
}

#[test]
fn a_log_renamed_or_copied_is_tampering() {
    let (site, id, _) = small_log();
    let renamed = site.logs().join("00000000000000aa");
    std::fs::rename(site.logs().join(id.to_string()), &renamed).unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 1);
    copy_dir(&renamed, &site.logs().join(id.to_string()));
    let report = check(&site, Level::L2);
    assert!(report.logs.iter().any(|l| l.findings.iter().any(|f| f.outcome == Outcome::Fork)), "{report}");
    assert_eq!(report.exit_code(), 1, "the gravest finding decides");
}

#[test]
fn a_missing_or_extra_segment_is_seen() {
    let (site, id, _) = small_log();
    let second = site.segment(id).with_file_name("00000002.jsonl");
    std::fs::copy(site.segment(id), &second).unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 1, "a duplicated segment");
    std::fs::remove_file(site.segment(id)).unwrap();
    let report = check(&site, Level::L2);
    assert_eq!(report.exit_code(), 1);
    assert!(report.to_string().contains("segment 00000001.jsonl is missing"), "{report}");
}
