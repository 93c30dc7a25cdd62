//! The policy that was in force, from the archive beside the logs.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use govrun_policy::{Policy, RuleInfo};
use govrun_verdict::{Digest, RuleId};

/// Largest archive that is read, in bytes: the bound of a policy's text, and its file names.
const MAX_BUNDLE: u64 = 160 << 20;

/// The archived policy of this epoch, or one sentence why it is not there.
pub(crate) fn load(folder: &Path, epoch: Digest) -> Result<Policy, String> {
    let digits = epoch.to_string();
    let path = folder.join("policies").join(format!("{}.bundle", digits.trim_start_matches("b3:")));
    let mut bundle = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_BUNDLE).read_to_end(&mut bundle))
        .map_err(|e| format!("the policy {epoch} is not archived here ({}: {e})", path.display()))?;
    // The name of the file proves nothing: the digest of what is in it does.
    match Policy::from_bundle(&bundle) {
        Ok(policy) if policy.epoch() == epoch => Ok(policy),
        Ok(_) | Err(_) => {
            Err(format!("{} is not the policy {epoch}: it was changed or damaged", path.display()))
        }
    }
}

/// The rule as it was written then; `None` for rules of govrun itself.
pub(super) fn rule<'p>(policy: Option<&'p Policy>, id: &str) -> Option<&'p RuleInfo> {
    policy?.rule(&RuleId::new(id).ok()?)
}

/// The message with the values that the record shows filled in. `value` says what stands for a name.
pub(super) fn fill(message: &str, value: impl Fn(&str) -> String) -> String {
    let (mut out, mut rest) = (String::new(), message);
    while let Some((before, after)) = rest.split_once(['{', '}']) {
        out.push_str(before);
        let doubled = after.strip_prefix(['{', '}']);
        if let Some(after) = doubled {
            out.extend(after_brace(rest, before));
            rest = after;
        } else if let Some((name, after)) = after.split_once('}') {
            out.push_str(&value(name));
            rest = after;
        } else {
            rest = after;
        }
    }
    out + rest
}

fn after_brace(text: &str, before: &str) -> Option<char> {
    text.get(before.len()..)?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn values_take_the_place_of_their_names() {
        let value = |name: &str| format!("<{name}>");
        assert_eq!(fill("a {b.c} {{d}} {e}", value), "a <b.c> {d} <e>");
        assert_eq!(fill("", value), "");
    }
}
