//! `policy lock`, `policy sign` and `policy verify`: a policy that nobody can exchange.
//!
//! `policy.sig` is a signed note over
//! ```text
//! govrun policy v1
//! origin <origin of the trust file>
//! epoch b3:<64 hexadecimal digits>
//! ```
//! with a signature line for each approver. The epoch is the digest of every file of the policy, so that whatever is
//! altered, no signature fits any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use govrun_audit::note::Note;
use govrun_audit::{ApproverKey, Trust};
use govrun_policy::{LOCK, Policy, Sources};

use super::load;
use crate::exit::{Exit, Failure};
use crate::state::StateDir;

/// Name of the signatures in the policy folder.
const SIGNATURES: &str = "policy.sig";
/// The role of approvers whose signature counts.
const ROLE: &str = "policy";
/// Largest file of signatures, in bytes.
const MAX_SIGNATURES: u64 = 16 << 10;
/// File of the state directory that remembers how many signatures were once required: a manifest that forgets them is
/// one that was altered.
const PIN: &str = "policy-signatures";

/// Write the lock.
pub(super) fn lock(folder: &Path) -> Result<Exit, Failure> {
    let sources = Sources::read(folder).map_err(|e| Failure::new(Exit::Configuration, e))?;
    let path = folder.join(LOCK);
    std::fs::write(&path, sources.lock()).map_err(|e| unwritable(&path, &e))?;
    let policy = load(folder)?;
    println!("{} pins {} files; epoch {}", path.display(), sources.files.len(), policy.epoch());
    Ok(Exit::Ok)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Runtime, format!("{} cannot be written: {error}", path.display()))
}

fn statement(trust: &Trust, policy: &Policy) -> String {
    format!("govrun policy v1\norigin {}\nepoch {}\n", trust.origin, policy.epoch())
}

/// Sign the policy as it is now; signatures of others for the same epoch stay.
pub(super) fn sign(
    state: &StateDir,
    folder: &Path,
    approver: &str,
    key: Option<&Path>,
) -> Result<Exit, Failure> {
    let configuration = |e: &dyn std::fmt::Display| Failure::new(Exit::Configuration, e);
    let trust = Trust::load(&state.trust()).map_err(|e| configuration(&e))?;
    let listed = trust.approvers.iter().find(|a| a.name == approver).filter(|a| may_sign(&a.roles));
    let listed = listed.ok_or_else(|| {
        let sentence = format!(
            "`{approver}` is not in the trust file with the role `{ROLE}`; add one with `govrun keys approver NAME --role {ROLE}`"
        );
        Failure::new(Exit::Configuration, sentence)
    })?;
    let default = state.keys().join(format!("{approver}.approver.key"));
    let key = ApproverKey::load(key.unwrap_or(&default), approver).map_err(|e| configuration(&e))?;
    if *key.verifier() != listed.key {
        let sentence = format!("this is not the key that the trust file lists for `{approver}`");
        return Err(Failure::new(Exit::Configuration, sentence));
    }
    let policy = load(folder)?;
    let text = statement(&trust, &policy);
    let path = folder.join(SIGNATURES);
    let note = with_others(&path, &text, key.sign_note(&text), approver)?;
    std::fs::write(&path, note).map_err(|e| unwritable(&path, &e))?;
    println!("{} signed epoch {}, in {}", approver, policy.epoch(), path.display());
    Ok(Exit::Ok)
}

/// The note with the signature lines that are there already, where they are about the same text.
fn with_others(path: &Path, text: &str, signed: String, approver: &str) -> Result<String, Failure> {
    let Some(before) = read(path)? else { return Ok(signed) };
    let same = Note::parse(&before).is_ok_and(|note| note.text == text);
    let Some((_, lines)) = before.rsplit_once("\n\n").filter(|_| same) else { return Ok(signed) };
    let own = format!("\u{2014} {approver} ");
    let others = lines.lines().filter(|line| !line.starts_with(&own));
    Ok(others.fold(signed, |note, line| format!("{note}{line}\n")))
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    use std::io::Read as _;
    let unreadable = |e: std::io::Error| {
        Failure::new(Exit::Configuration, format!("{} cannot be read: {e}", path.display()))
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let mut text = String::new();
    file.take(MAX_SIGNATURES).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Some(text))
}

fn may_sign(roles: &[String]) -> bool {
    roles.iter().any(|role| role.strip_prefix("role:").unwrap_or(role) == ROLE)
}

/// Who signed this policy, as it is.
fn signers(folder: &Path, policy: &Policy, trust: &Trust) -> Result<BTreeSet<String>, Failure> {
    let Some(text) = read(&folder.join(SIGNATURES))? else { return Ok(BTreeSet::new()) };
    let Ok(note) = Note::parse(&text) else { return Ok(BTreeSet::new()) };
    if note.text != statement(trust, policy) {
        return Ok(BTreeSet::new());
    }
    let signed = trust.approvers.iter().filter(|a| may_sign(&a.roles) && note.signed_by(&a.key).is_ok());
    // One key listed under two names is one signer.
    let keys: BTreeSet<(String, String)> = signed.map(|a| (a.key.to_string(), a.name.clone())).collect();
    let distinct: BTreeSet<String> =
        keys.into_iter().map(|(key, _)| key.rsplit('+').next().unwrap_or_default().to_owned()).collect();
    Ok(distinct)
}

/// Check the signatures and say who signed.
pub(super) fn verify(folder: &Path, trust: &Path, need: u64) -> Result<Exit, Failure> {
    let trust = Trust::load(trust).map_err(|e| Failure::new(Exit::Configuration, e))?;
    let policy = load(folder)?;
    let need = need.max(policy.required_signatures());
    enough(folder, &policy, &trust, need)?;
    println!("epoch {} is signed by {need} or more approvers with the role `{ROLE}`", policy.epoch());
    Ok(Exit::Ok)
}

fn enough(folder: &Path, policy: &Policy, trust: &Trust, need: u64) -> Result<(), Failure> {
    let signed = signers(folder, policy, trust)?;
    if u64::try_from(signed.len()).is_ok_and(|count| count >= need) {
        return Ok(());
    }
    let sentence = format!(
        "the policy in `{}` is signed by {} of the {need} approvers that it needs, so nothing runs; after reviewing epoch {}, `govrun policy sign --as NAME`",
        folder.display(),
        signed.len(),
        policy.epoch()
    );
    Err(Failure::new(Exit::Configuration, sentence))
}

/// Refuse a policy that needs signatures and does not have them. Once signatures were needed in a state directory they
/// always are, whatever a manifest says.
pub(crate) fn signed_policy(state: &StateDir, folder: &Path, policy: &Policy) -> Result<(), Failure> {
    let pin: PathBuf = state.path().join(PIN);
    let pinned = match read(&pin)? {
        None => 0,
        Some(text) => text.trim().parse().map_err(|_| {
            Failure::new(Exit::Configuration, format!("{} does not hold a number", pin.display()))
        })?,
    };
    let need = policy.required_signatures().max(pinned);
    if need == 0 {
        return Ok(());
    }
    let trust = Trust::load(&state.trust()).map_err(|e| Failure::new(Exit::Configuration, e))?;
    enough(folder, policy, &trust, need)?;
    if need > pinned {
        std::fs::write(&pin, format!("{need}\n")).map_err(|e| unwritable(&pin, &e))?;
    }
    Ok(())
}
