//! `policy.lock`: the digest of every file, so that a policy in which one was exchanged does not load.
//!
//! ```text
//! govrun policy lock 1
//! b3:<64 hexadecimal digits> <path>
//! ```
//! One line for each other file of the policy, by ascending path, each ended by a line feed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use govrun_verdict::Digest;

use crate::error::LoadError;
use crate::sources::{SourceFile, Sources};

/// Name of the lock in the policy folder.
pub const LOCK: &str = "policy.lock";

const FIRST_LINE: &str = "govrun policy lock 1\n";

impl Sources {
    /// The text of the lock that fits these files.
    #[must_use]
    pub fn lock(&self) -> String {
        let files = self.files.iter().filter(|f| f.path != LOCK);
        let digests: BTreeMap<&str, Digest> =
            files.map(|f| (&*f.path, Digest::of(f.text.as_bytes()))).collect();
        let mut text = FIRST_LINE.to_owned();
        for (path, digest) in digests {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{digest} {path}");
        }
        text
    }
}

/// What does not fit the lock. With `required`, a missing lock does not fit either.
pub(crate) fn check(sources: &Sources, required: bool) -> Vec<LoadError> {
    let Some(lock) = sources.files.iter().find(|f| f.path == LOCK) else {
        let missing = LoadError::of_file(LOCK, "the manifest requires a lock, and there is none")
            .with_help("after reviewing the change, write it with `govrun policy lock`");
        return if required { vec![missing] } else { Vec::new() };
    };
    let Some(locked) = parse(&lock.text) else {
        return vec![LoadError::of_file(
            LOCK,
            "is not a lock: its lines are not those that `govrun policy lock` writes",
        )];
    };
    let there = sources.files.iter().filter(|f| f.path != LOCK);
    let mut errors: Vec<LoadError> = there.filter_map(|file| unlocked(file, &locked)).collect();
    let gone = locked.keys().filter(|path| sources.files.iter().all(|f| f.path != **path));
    errors.extend(
        gone.map(|path| LoadError::of_file(LOCK, format!("locks `{path}`, which is not part of the policy"))),
    );
    errors
}

fn unlocked(file: &SourceFile, locked: &BTreeMap<&str, Digest>) -> Option<LoadError> {
    let wrong = match locked.get(&*file.path) {
        Some(digest) if *digest == Digest::of(file.text.as_bytes()) => return None,
        Some(_) => "is not the file that `policy.lock` pins: its digest differs",
        None => "is not in `policy.lock`",
    };
    Some(
        LoadError::of_file(&file.path, wrong)
            .with_help("after reviewing the change, write the lock again with `govrun policy lock`"),
    )
}

/// `None` for any other text than [`Sources::lock`] writes.
fn parse(text: &str) -> Option<BTreeMap<&str, Digest>> {
    let mut locked = BTreeMap::new();
    for line in text.strip_prefix(FIRST_LINE)?.strip_suffix('\n')?.split('\n') {
        let (digest, path) = line.split_once(' ')?;
        let ascending = locked.last_key_value().is_none_or(|(last, _)| *last < path);
        locked.insert(path, Digest::parse(digest).ok().filter(|_| ascending)?);
    }
    Some(locked)
}
