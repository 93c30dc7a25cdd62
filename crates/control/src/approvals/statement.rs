//! What an approval is bound to, and what an approver signs.
//!
//! Both are sequences of fields, each preceded by its length as 8 little-endian bytes and the first naming the purpose,
//! so that no bytes can move between fields or from one purpose to the other.

use ed25519_dalek::{Signature, VerifyingKey};
use subtle::ConstantTimeEq as _;

use super::{Approval, Choice};

const BINDING: &str = "govrun approval binding v1";
const STATEMENT: &str = "govrun approval statement v1";

/// A signature that is not one of this approver under this statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the approver's signature does not verify")]
pub struct BadSignature;

#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn add(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.number(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(&mut self, n: u64) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.number(u64::try_from(items.len()).unwrap_or(u64::MAX));
        items.iter().for_each(|item| each(self, item));
        self
    }
}

/// BLAKE3 of the call's encoding under the approval's nonce: without the nonce the hash cannot be tried out against
/// guessed arguments.
pub(crate) fn binding(nonce: &[u8; 32], call_encoding: &[u8]) -> [u8; 32] {
    let mut fields = Fields::default();
    fields.add(BINDING).add(call_encoding);
    *blake3::keyed_hash(nonce, &fields.0).as_bytes()
}

/// Compared in constant time, so that a caller cannot approach a binding byte by byte.
pub(crate) fn binds(nonce: &[u8; 32], expected: &[u8; 32], call_encoding: &[u8]) -> bool {
    binding(nonce, call_encoding).ct_eq(expected).into()
}

/// The bytes that an approver signs: the choice and everything about the approval that never changes, including what
/// was shown to the approver.
#[must_use]
pub fn approval_statement(approval: &Approval, choice: Choice) -> Vec<u8> {
    let mut fields = Fields::default();
    fields
        .add(STATEMENT)
        .add(choice.name())
        .add(approval.id.as_str())
        .add(approval.nonce)
        .add(approval.binding)
        .add(approval.principal.agent.as_bytes())
        .list(approval.principal.tenant.as_slice(), |f, tenant| {
            f.add(tenant.as_bytes());
        })
        .add(approval.principal.session.as_bytes())
        .add(approval.tool.name.as_bytes())
        .add(approval.tool.component.0)
        .add(approval.epoch.0)
        .add(approval.node.as_bytes())
        .add(approval.decision.to_string())
        .number(approval.created.0)
        .number(approval.expires_at.0)
        .number(approval.need.get())
        .list(&approval.roles, |f, role| {
            f.add(role.as_bytes());
        })
        .list(&approval.shown, |f, (name, value)| {
            f.add(name).add(value);
        });
    fields.0
}

/// Verify an approver's ed25519 signature over [`approval_statement`] (RFC 8032, without the malleable and small-order
/// cases).
///
/// # Errors
/// When the key is not a point of the curve or the signature is not one of this statement under this key.
pub fn verify_statement(
    approval: &Approval,
    choice: Choice,
    public_key: &[u8; 32],
    signature: &[u8; 64],
) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_bytes(public_key).map_err(|_| BadSignature)?;
    key.verify_strict(&approval_statement(approval, choice), &Signature::from_bytes(signature))
        .map_err(|_| BadSignature)
}
