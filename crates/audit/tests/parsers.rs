//! The parsers of lines, seals, notes, proofs, requests, pins and certificates on mutated input: none panics, and what is
//! accepted is spelled as it would be written. `GOVRUN_FUZZ=1000000` tries that many mutations of each, 2,000 otherwise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "tests fail by panicking"
)]

mod support;

use govrun_audit::cosign::{Head, WitnessKey};
use govrun_audit::form::{Line, SealLine, parse_line};
use govrun_audit::note::{Note, VerifierKey};
use govrun_audit::pin::Pin;
use govrun_audit::prove::Proof;
use govrun_audit::verify::Level;
use govrun_audit::witness::Request;
use govrun_audit::{Certificate, certified, submit};
use govrun_verdict::Durability;
use support::*;

/// A small generator of numbers that is the same every time: a failure can be found again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    /// One to four edits: bytes changed, put in, taken out, doubled, or swapped for those that parsers care about.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const TRICKS: &[&[u8]] = &[
            b"\"",
            b"\\",
            b"{",
            b"}",
            b"[",
            b",",
            b":",
            b"\n",
            b"\n\n",
            b"0",
            b"-1",
            b"1e3",
            b"null",
            b"true",
            b"\0",
            b"9007199254740992",
            b"18446744073709551616",
            b"\\u0000",
            "\u{2014} ".as_bytes(),
            b"=",
            b"+",
            b" ",
            b"\xff",
        ];
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len());
            match self.below(6) {
                0 if !out.is_empty() => out[at] ^= 1 << self.below(8),
                1 if !out.is_empty() => drop(out.remove(at)),
                2 => {
                    let end = (at + self.below(40)).min(out.len());
                    let piece = out[at.min(end)..end].to_vec();
                    out.splice(at.min(end)..at.min(end), piece);
                }
                3 => out.truncate(at),
                _ => drop(out.splice(at..at, TRICKS[self.below(TRICKS.len())].iter().copied())),
            }
        }
        out
    }
}

fn rounds() -> usize {
    std::env::var("GOVRUN_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

fn each(seeds: &[Vec<u8>], mut check: impl FnMut(&[u8])) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in seeds {
        check(seed);
    }
    for _ in 0..rounds() {
        let seed = random.below(seeds.len());
        check(&random.mutate(&seeds[seed]));
    }
}

fn texts(seeds: &[&str], mut check: impl FnMut(&str)) {
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|s| s.as_bytes().to_vec()).collect();
    each(&seeds, |bytes| check(&String::from_utf8_lossy(bytes)));
}

#[test]
fn lines_and_seals() {
    let (site, id) = log_of_everything(Size::Full);
    let seeds: Vec<Vec<u8>> = lines(&site.segment(id))
        .iter()
        .map(|l| l[..l.len() - 1].to_vec())
        .filter(|l| l.len() < 4_000)
        .collect();
    let mut accepted = 0;
    each(&seeds, |line| {
        let again = match parse_line(line) {
            Ok(Line::Record(frame)) => {
                let mut out = Vec::new();
                let mut scratch = Vec::new();
                let Ok(body) = frame.body_in(&mut scratch) else { return };
                govrun_audit::form::begin_line(&mut out, &frame.head);
                let mut json = Vec::new();
                body.write_to(&mut json).unwrap();
                govrun_audit::form::push_body(&mut out, &json);
                govrun_audit::form::end_line(&mut out, frame.seal.as_ref(), &frame.prev);
                out
            }
            Ok(Line::Seal(seal)) => seal.line().unwrap(),
            Err(_) => return,
        };
        accepted += 1;
        assert_eq!(again, line, "{}", String::from_utf8_lossy(line));
        let _ = SealLine::parse(line);
    });
    assert!(accepted >= seeds.len(), "{accepted}");
}

#[test]
fn notes_proofs_requests_pins_and_certificates() {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 9, Durability::Disk);
    log.close().unwrap();
    let id = govrun_audit::read::logs(&site.logs()).unwrap()[0];
    let (note, head) = submit::published(&site.logs(), id).unwrap();
    texts(&[&note, site.keys.certificate().note()], |text| {
        if let Ok(parsed) = Note::parse(text) {
            assert!(text.starts_with(parsed.text));
            let _ = Head::parse(parsed.text);
        }
        let _ = Certificate::parse(text);
        let _ = certified::without_epoch_signature(text);
    });
    let request = submit::request(&site.logs(), id, 3, &note, &head).unwrap().text();
    texts(&[&request], |text| {
        if let Ok(parsed) = Request::parse(text) {
            assert_eq!(parsed.text(), text);
        }
    });
    let extra = certified::condense(site.keys.certificate()).unwrap();
    let proof = Proof { extra: extra.clone(), index: 4, hashes: vec![[7; 32]; 4], checkpoint: note }.text();
    texts(&[&proof], |text| {
        if let Ok(parsed) = Proof::parse(text) {
            assert_eq!(parsed.text(), text);
        }
        assert!(certified::check(text, b"no record", &site.trust).is_err());
    });
    each(std::slice::from_ref(&extra), |bytes| {
        assert!(certified::expand(bytes, &site.trust).is_err() || bytes == extra);
    });
    let pin = Pin::default().moved_on(&check(&site, Level::L2)).unwrap();
    let file = site.root.path().join("pin");
    pin.save(&file).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    texts(&[&text], |text| drop(Pin::parse(text.as_bytes())));
    let keys = [site.trust.root.to_string(), "w+00000000+BAAA".to_owned()];
    texts(&[&keys[0], &keys[1]], |text| {
        if let Ok(key) = VerifierKey::parse(text) {
            assert_eq!(key.to_string(), text);
        }
        let _ = WitnessKey::parse(text);
    });
}
