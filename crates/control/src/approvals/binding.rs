//! What an approval is bound to, and what an approver answers.
//!
//! Both are hashes of sequences of fields, each preceded by its length as 8 little-endian bytes and the first naming the purpose,
//! so that no bytes can move between fields or from one purpose to the other.

use subtle::ConstantTimeEq as _;

use super::Approval;

const BINDING: &str = "govrun approval binding v1";
const COMMITMENT: &str = "govrun approval commitment v1";

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

/// What an approver's signature is about: a salted commitment to everything of the approval that never changes, what was
/// shown to the approver included. Without the nonce it cannot be tried out against guessed arguments.
pub(crate) fn commitment(approval: &Approval) -> [u8; 32] {
    let mut fields = Fields::default();
    fields
        .add(COMMITMENT)
        .add(approval.id.as_str())
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
    *blake3::keyed_hash(&approval.nonce, &fields.0).as_bytes()
}
