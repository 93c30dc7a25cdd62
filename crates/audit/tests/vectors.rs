//! Vectors of others: RFC 8032, Wycheproof, speccheck, RFC 6962 proofs, C2SP notes. And the worked log of the format document.
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

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use govrun_audit::hash::{Hash, Tree, extends, includes, leaf};
use govrun_audit::note::{Note, NoteError, VerifierKey, sign, verify_strict};
use proptest::prelude::*;
use serde_json::Value;

fn cases(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap()
}

fn hex_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn accepts(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    public.try_into().is_ok_and(|public| verify_strict(public, message, signature))
}

#[test]
fn rfc_8032_signatures_hold() {
    // Section 7.1, tests 1 to 3: secret key, public key, message, signature.
    let tests = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    for (secret, public, message, signature) in tests {
        let bytes = |s: &str| hex::decode(s).unwrap();
        assert!(accepts(&bytes(public), &bytes(message), &bytes(signature)));
        let key = ed25519_dalek::SigningKey::from_bytes(&bytes(secret).try_into().unwrap());
        let signed = ed25519_dalek::Signer::sign(&key, &bytes(message)).to_bytes();
        assert_eq!(signed.to_vec(), bytes(signature));
    }
}

#[test]
fn wycheproof_ed25519() {
    let cases = cases(include_str!("vectors/ed25519_wycheproof.json"));
    assert_eq!(cases.len(), 151);
    for case in cases {
        let [id, public, message, signature, valid] = &case.as_array().unwrap()[..] else { panic!("{case}") };
        let accepted = accepts(&hex_of(public), &hex_of(message), &hex_of(signature));
        assert_eq!(Value::Bool(accepted), *valid, "case {id}");
    }
}

#[test]
fn speccheck_ed25519_as_a_strict_verifier_must() {
    let cases = cases(include_str!("vectors/ed25519_speccheck.json"));
    assert_eq!(cases.len(), 12);
    let accepted = cases
        .iter()
        .enumerate()
        .filter(|(_, c)| accepts(&hex_of(&c["pub_key"]), &hex_of(&c["message"]), &hex_of(&c["signature"])));
    // Only mixed-order A and R that satisfy the equation without cofactor: no small order, no non-canonical encoding.
    assert_eq!(accepted.map(|(i, _)| i).collect::<Vec<_>>(), [3]);
}

fn hash_of(value: &Value) -> Option<Hash> {
    STANDARD.decode(value.as_str()?).ok()?.try_into().ok()
}

fn proof_of(value: &Value) -> Option<Vec<Hash>> {
    value.as_array().map_or(Some(Vec::new()), |proof| proof.iter().map(hash_of).collect())
}

#[test]
fn rfc_6962_inclusion_proofs() {
    let cases = cases(include_str!("vectors/merkle_inclusion.json"));
    assert_eq!(cases.len(), 98);
    for case in cases {
        let check = || {
            let (index, size) = (case["leafIdx"].as_u64()?, case["treeSize"].as_u64()?);
            let (leaf, root) = (hash_of(&case["leafHash"])?, hash_of(&case["root"])?);
            Some(includes(index, size, leaf, &proof_of(&case["proof"])?, &root))
        };
        assert_eq!(check() == Some(true), case["wantErr"] == false, "{}", case["desc"]);
    }
}

#[test]
fn rfc_6962_consistency_proofs() {
    let cases = cases(include_str!("vectors/merkle_consistency.json"));
    assert_eq!(cases.len(), 98);
    for case in cases {
        if case["desc"] == "additional/sizes-are-equal-one-and-proof-is-empty" {
            // Its roots are not hashes, which this code cannot even express.
            assert_eq!(hash_of(&case["root1"]), None);
            continue;
        }
        let check = || {
            let (old, new) = (case["size1"].as_u64()?, case["size2"].as_u64()?);
            let (old_root, new_root) = (hash_of(&case["root1"])?, hash_of(&case["root2"])?);
            Some(extends(old, new, &old_root, &new_root, &proof_of(&case["proof"])?))
        };
        assert_eq!(check() == Some(true), case["wantErr"] == false, "{}", case["desc"]);
    }
}

/// RFC 6962 section 2.1, as it is written there.
fn root_by_the_rfc(leaves: &[Hash]) -> Hash {
    use sha2::Digest as _;
    match leaves {
        [] => sha2::Sha256::digest([]).into(),
        [one] => *one,
        more => {
            let k = more.len().next_power_of_two() / 2;
            let (left, right) = more.split_at(k);
            sha2::Sha256::digest([&[1][..], &root_by_the_rfc(left), &root_by_the_rfc(right)].concat()).into()
        }
    }
}

proptest! {
    #[test]
    fn the_incremental_tree_is_the_tree_of_the_rfc(size in 0_usize..300) {
        let leaves: Vec<Hash> = (0..size).map(|i| leaf(i.to_string().as_bytes())).collect();
        let mut tree = Tree::default();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        prop_assert_eq!(tree.root(), root_by_the_rfc(&leaves));
        prop_assert_eq!(Tree::from_range(tree.size(), tree.range().to_vec()), Some(tree));
    }
}

const NEUMANN: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const NEUMANN_SECRET: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const NEUMANN_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const FOO: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const FOO_NOTE: &str = "This is an example message.\n\n\
    — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

#[test]
fn c2sp_example_notes_round_trip() {
    for (key, note) in [(NEUMANN, NEUMANN_NOTE), (FOO, FOO_NOTE)] {
        let verifier = VerifierKey::parse(key).unwrap();
        assert_eq!(verifier.to_string(), key);
        let parsed = Note::parse(note).unwrap();
        assert_eq!(parsed.signed_by(&verifier).unwrap(), parsed.text);
        let changed = note.replacen('e', "E", 1);
        assert!(matches!(Note::parse(&changed).unwrap().signed_by(&verifier), Err(NoteError::Signature(_))));
    }
    let seed = STANDARD.decode(NEUMANN_SECRET).unwrap();
    let secret = ed25519_dalek::SigningKey::from_bytes(seed[1..].try_into().unwrap());
    let text = Note::parse(NEUMANN_NOTE).unwrap().text;
    assert_eq!(sign(text, &VerifierKey::parse(NEUMANN).unwrap(), &secret), NEUMANN_NOTE, "byte for byte");
    let other = Note::parse(NEUMANN_NOTE).unwrap();
    assert!(matches!(other.signed_by(&VerifierKey::parse(FOO).unwrap()), Err(NoteError::OtherKey(_))));
    // A second signature, of an unknown key, does not hurt; a malformed line does.
    let more = format!("{NEUMANN_NOTE}— other AAAAAAAA\n");
    assert!(Note::parse(&more).unwrap().signed_by(&VerifierKey::parse(NEUMANN).unwrap()).is_ok());
    for bad in ["— other !!!!\n", "- other AAAAAAAA\n", "— AAAAAAAA\n", "\n", "x"] {
        assert!(Note::parse(&format!("{NEUMANN_NOTE}{bad}")).is_err(), "{bad:?}");
    }
}

#[test]
fn a_mangled_verifier_key_is_refused() {
    for at in 0..NEUMANN.len() {
        assert!(VerifierKey::parse(&NEUMANN[..at]).is_err());
        let mut mangled = NEUMANN.as_bytes().to_vec();
        mangled[at] += 1;
        assert!(VerifierKey::parse(std::str::from_utf8(&mangled).unwrap()).is_err(), "{at}");
    }
}

#[test]
fn every_seal_is_a_c2sp_checkpoint() {
    let site = support::Site::new();
    let log = site.open();
    support::record_n(&log, 5, govrun_verdict::Durability::Sealed);
    let id = log.id();
    log.close().unwrap();
    let origin = govrun_audit::log_origin(&site.trust.origin, id);
    let mut seals = 0;
    let mut keys = Vec::new();
    for line in support::lines(&site.segment(id)) {
        let line = &line[..line.len() - 1];
        let record: Value = serde_json::from_slice(line).unwrap();
        match record["t"].as_str() {
            Some("genesis") => keys.push(hex_of(&record["epoch_key"])),
            Some("key_epoch") => keys.push(hex_of(&record["key"])),
            _ => {}
        }
        let Ok(seal) = govrun_audit::form::SealLine::parse(line) else { continue };
        seals += 1;
        let public = keys[usize::try_from(seal.epoch.0).unwrap()].clone().try_into().unwrap();
        let key = VerifierKey::new(&origin, public).unwrap();
        let note = seal.note();
        let note = Note::parse(&note).unwrap();
        let text = note.signed_by(&key).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], [origin.as_str(), &seal.size.0.to_string()]);
        assert_eq!(STANDARD.decode(lines[2]).unwrap(), seal.root.0);
        assert_eq!(lines[3..], [format!("synced {}", seal.synced.0)]);
    }
    assert!(seals >= 7);
}

/// Not a test by itself: with `GOVRUN_UPDATE_WORKED=1` it writes the worked log anew and puts it into the document, between
/// its two headings. The keys are thrown away.
#[test]
fn write_the_worked_log() {
    use govrun_audit::form::{Line, parse_line};
    if std::env::var_os("GOVRUN_UPDATE_WORKED").is_none() {
        return;
    }
    let site = support::Site::new();
    let log = site.open();
    let id = log.id();
    let decision = support::record_n(&log, 1, govrun_verdict::Durability::Sealed)[0];
    log.outcome(&support::outcome(decision)).unwrap();
    log.close().unwrap();
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/worked");
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::create_dir_all(dir.join(id.to_string())).unwrap();
    site.trust.save(&dir.join("trust.toml")).unwrap();
    for name in ["00000001.jsonl", "openings.jsonl"] {
        let from = site.segment(id).with_file_name(name);
        std::fs::copy(from, dir.join(id.to_string()).join(name)).unwrap();
    }
    let mut text = format!(
        "## A worked log\n\nRoot key, as in the trust file: `{}`. One\nallowed payment, its outcome, and a clean end; the lines are \
         stored in `crates/audit/tests/vectors/worked/`, and a test\ncompares them with this page.\n\n",
        site.trust.root
    );
    let mut note = String::new();
    for line in support::lines(&site.segment(id)) {
        let line = std::str::from_utf8(&line[..line.len() - 1]).unwrap();
        let (what, tag, hash) = match parse_line(line.as_bytes()).unwrap() {
            Line::Record(f) => {
                (format!("record {}, {}", f.head.seq, f.head.kind.name()), 0, leaf(line.as_bytes()))
            }
            Line::Seal(s) => {
                if s.size.0 == 3 {
                    note = s.note();
                }
                let what = format!("seal of epoch {}, size {}, synced {}", s.epoch.0, s.size.0, s.synced.0);
                (what, 2, govrun_audit::hash::seal(line.as_bytes()))
            }
        };
        let hash = hex::encode(hash);
        text += &format!("{what} – `SHA-256(0x0{tag} ‖ line)` =\n`{hash}`\n\n```json\n{line}\n```\n\n");
    }
    let opening = std::fs::read_to_string(site.segment(id).with_file_name("openings.jsonl")).unwrap();
    let parsed: govrun_audit::Opening<'_> = serde_json::from_str(&opening).unwrap();
    let value = serde_json::to_vec(&parsed.value).unwrap();
    let commitment = hex::encode(govrun_audit::commitment(&parsed.salt.0, &parsed.field, &value));
    text += &format!("The seal of size 3 as a signed note:\n\n```text\n{note}```\n\n");
    text += &format!(
        "The opening of `{}`, whose commitment is `{commitment}`:\n\n```json\n{opening}```\n",
        &*parsed.field
    );
    let document = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/audit-log.md");
    let before = std::fs::read_to_string(&document).unwrap();
    let kept = before.split("## A worked log\n").next().unwrap();
    std::fs::write(&document, format!("{kept}{text}")).unwrap();
}

/// The log that the format document walks through: it verifies, and what the document says about its bytes is true.
#[test]
fn the_worked_log_of_the_format_document() {
    use govrun_audit::form::{Line, parse_line};
    use govrun_audit::verify::{Level, verify};
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/worked");
    let trust = govrun_audit::Trust::load(&dir.join("trust.toml")).unwrap();
    let report = verify(&dir, &trust, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
    let document = include_str!("../../../docs/formats/audit-log.md");
    assert!(document.contains(&trust.root.to_string()), "the root key");
    let id = report.logs[0].id;
    let segment = support::lines(&dir.join(id.to_string()).join("00000001.jsonl"));
    for line in &segment {
        let line = &line[..line.len() - 1];
        let text = std::str::from_utf8(line).unwrap();
        assert!(document.contains(text), "the document does not show {text}");
        let hash = match parse_line(line).unwrap() {
            Line::Record(_) => leaf(line),
            Line::Seal(seal) => {
                let note = seal.note();
                let shown = document.contains(&note);
                assert!(shown || seal.size.0 != 3, "the note of the seal of size 3 is not shown:\n{note}");
                govrun_audit::hash::seal(line)
            }
        };
        assert!(document.contains(&hex::encode(hash)), "the document does not show the hash of {text}");
    }
    let opening = std::fs::read_to_string(dir.join(id.to_string()).join("openings.jsonl")).unwrap();
    assert!(document.contains(opening.trim_end()), "the opening");
    let opening: govrun_audit::Opening<'_> = serde_json::from_str(&opening).unwrap();
    let value = serde_json::to_vec(&opening.value).unwrap();
    let commitment = govrun_audit::commitment(&opening.salt.0, &opening.field, &value);
    assert!(document.contains(&hex::encode(commitment)), "the commitment");
}
