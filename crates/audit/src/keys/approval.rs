//! Approvers and what they sign.

use std::fmt;
use std::path::Path;

use ed25519_dalek::{Signer as _, SigningKey};
use govrun_verdict::{DecisionId, Timestamp};

use super::{KeyError, check_name, secret};
use crate::form::Hex;
use crate::note::{self, VerifierKey};

/// The secret key of a person or higher-trust agent that may approve.
pub struct ApproverKey {
    key: VerifierKey,
    secret: SigningKey,
}

impl fmt::Debug for ApproverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApproverKey").field("key", &self.key).finish_non_exhaustive()
    }
}

fn role(name: &str) -> String {
    format!("approver {name}")
}

impl ApproverKey {
    /// Make `<dir>/<name>.approver.key`.
    ///
    /// # Errors
    /// When the name is not acceptable, the file exists, or it cannot be written.
    pub fn generate(dir: &Path, name: &str) -> Result<Self, KeyError> {
        check_name(name)?;
        if name.contains('/') {
            return Err(KeyError::Name(name.to_owned()));
        }
        secret::private_dir(dir)?;
        let secret = secret::generate()?;
        secret::store(&dir.join(format!("{name}.approver.key")), &role(name), &secret)?;
        Ok(Self { key: VerifierKey::new(name, secret.verifying_key().to_bytes())?, secret })
    }

    /// Load the key of this name from a file.
    ///
    /// # Errors
    /// When the file is missing, can be read by others, or is the key of another name.
    pub fn load(path: &Path, name: &str) -> Result<Self, KeyError> {
        check_name(name)?;
        let secret = secret::load(path, &role(name))?;
        Ok(Self { key: VerifierKey::new(name, secret.verifying_key().to_bytes())?, secret })
    }

    /// The public half, as it is listed in the trust file.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.key
    }

    /// Answer an escalation.
    #[must_use]
    pub fn sign(&self, statement: ApprovalStatement) -> SignedApproval {
        let signature = self.secret.sign(statement.text().as_bytes()).to_bytes();
        SignedApproval { key: self.key.clone(), statement, signature }
    }
}

impl ApproverKey {
    /// Sign a text as a note: a policy, for one. The text ends in a line feed, and begins with what it is, so that a
    /// signature is worth nothing for anything else.
    #[must_use]
    pub fn sign_note(&self, text: &str) -> String {
        note::sign(text, &self.key, &self.secret)
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The call may happen.
    Approve,
    /// It may not.
    Deny,
}

impl Answer {
    /// `approve` or `deny`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }
}

/// What an approver signs: an answer to exactly one call, worth nothing anywhere else.
///
/// ```text
/// govrun approval v1
/// origin example.org/govrun
/// ticket ap-7Q2M
/// decision 9f3c21aa04be7710-42
/// answer approve
/// binding <64 hex digits>
/// at 1764000000000000
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalStatement {
    /// Origin of the log, from the trust file.
    pub origin: String,
    /// Id of the approval: no control characters.
    pub ticket: String,
    /// The decision that escalated.
    pub decision: DecisionId,
    /// The answer.
    pub answer: Answer,
    /// Salted commitment to exactly the call, as the escalation record has it.
    pub binding: [u8; 32],
    /// When it was given.
    pub at: Timestamp,
}

impl ApprovalStatement {
    /// The signed text. Line breaks within a field become spaces, so that no field can pass for another.
    #[must_use]
    pub fn text(&self) -> String {
        let one_line = |text: &str| text.replace(char::is_control, " ");
        format!(
            "govrun approval v1\norigin {}\nticket {}\ndecision {}\nanswer {}\nbinding {}\nat {}\n",
            one_line(&self.origin),
            one_line(&self.ticket),
            self.decision,
            self.answer.name(),
            Hex(self.binding),
            self.at.0,
        )
    }
}

/// An approver's signed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedApproval {
    /// Who signed, by the key itself.
    pub key: VerifierKey,
    /// What was signed.
    pub statement: ApprovalStatement,
    /// The signature.
    pub signature: [u8; 64],
}

impl SignedApproval {
    /// Whether the key really signed the statement. Whether the key may approve is for the trust file to say.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.key.verifies(self.statement.text().as_bytes(), &self.signature)
    }
}
