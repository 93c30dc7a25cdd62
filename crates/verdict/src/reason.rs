//! The registry of reason codes that govrun itself gives; policies add their own.

use crate::decision::Verdict;
use crate::name::ReasonCode;

/// One built-in reason, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonInfo {
    /// The code.
    pub code: &'static str,
    /// The verdict it comes with.
    pub verdict: Verdict,
    /// What happened, as one sentence for the caller.
    pub sentence: &'static str,
    /// What to do next, for the engineer.
    pub next: &'static str,
}

macro_rules! builtin {
    ($($variant:ident $verdict:ident $code:literal $sentence:literal $next:literal)*) => {
        /// A reason that comes from govrun itself, not from a policy rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Builtin {
            $(#[doc = $sentence] $variant,)*
        }

        /// Every built-in reason, in one list.
        pub const BUILTIN_REASONS: &[ReasonInfo] = &[
            $(ReasonInfo { code: $code, verdict: Verdict::$verdict, sentence: $sentence, next: $next },)*
        ];

        impl Builtin {
            /// Every built-in reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The registry entry.
            #[must_use]
            pub const fn info(self) -> ReasonInfo {
                match self {
                    $(Self::$variant => ReasonInfo {
                        code: $code, verdict: Verdict::$verdict, sentence: $sentence, next: $next,
                    },)*
                }
            }
        }
    };
}

builtin! {
    DefaultDeny Block "DEFAULT-DENY"
        "No rule permits this." "Add an allow rule for this agent, action and resource, or leave it refused."
    CeilingNotPermitted Block "CEILING-NOT-PERMITTED"
        "A layer that sets a ceiling does not permit this." "Add an allow rule for it to that layer, or leave it refused."
    PastFull Block "PAST-FULL"
        "No more agents or labels can be remembered, so the call did not happen." "See which agents are new, and whether a policy adds labels without end."
    PolicyUnavailable Block "POLICY-UNAVAILABLE"
        "There is no loaded policy, so nothing runs." "Run `govrun policy check` on the policy folder and fix what it reports."
    AuditUnavailable Block "AUDIT-UNAVAILABLE"
        "The decision could not be recorded, so the call did not happen." "Check disk space and permissions of the log directory with `govrun doctor`."
    StoreUnavailable Block "STORE-UNAVAILABLE"
        "The budget and approval store could not be used, so the call did not happen." "Check the state directory with `govrun doctor`."
    ClockUnavailable Block "CLOCK-UNAVAILABLE"
        "The clock could not be read, so the call did not happen." "Set the system clock; a time before 2020 is refused."
    AgentUnknown Block "AGENT-UNKNOWN"
        "This agent is not in the registry." "Register it with an [[agent]] entry in the policy."
    ToolUnknown Block "TOOL-UNKNOWN"
        "There is no such tool in the registry." "Call a registered tool, or register this one with a [[tool]] entry."
    ToolDigestMismatch Block "TOOL-DIGEST-MISMATCH"
        "The component's bytes are not the registered ones." "If the change is wanted, put the new digest into the [[tool]] entry."
    ArgumentsInvalid Block "ARGUMENTS-INVALID"
        "The arguments do not fit the function's parameters." "Compare them with the signature that `govrun inspect` prints."
    ImportNotGoverned Block "IMPORT-NOT-GOVERNED"
        "The component imports something that is not governed." "Run `govrun inspect` on it; rebuild it without that import."
    BudgetExhausted Throttle "BUDGET-EXHAUSTED"
        "A limit is used up." "Wait as long as retry-after says; it is exact."
    BudgetKeysFull Block "BUDGET-KEYS-FULL"
        "A budget has more keys than it may track, so the call did not happen." "Key the budget by fewer dimensions, or raise the number of keys."
    ApprovalDenied Block "APPROVAL-DENIED"
        "An approver denied this call." "Do not repeat it; ask the approver why."
    ApprovalExpired Block "APPROVAL-EXPIRED"
        "Nobody approved this call in time." "Ask again when an approver is there."
    ApprovalPending Escalate "APPROVAL-PENDING"
        "This call waits for an approval." "Approve or deny it with `govrun approvals`, then repeat the same call."
    ApprovalInvalid Block "APPROVAL-INVALID"
        "The approval of this call does not hold." "Ask again; the approval was forged, altered, or overtaken by a stricter policy."
    ApprovalQuota Block "APPROVAL-QUOTA"
        "This agent already has as many pending approvals as it may have." "Decide the pending ones with `govrun approvals list`."
    SandboxNoEgress Block "SANDBOX-NO-EGRESS"
        "This call runs in a sandbox without egress." "Nothing; the sandbox profile of the call says egress = \"none\"."
    SandboxScratchFull Block "SANDBOX-SCRATCH-FULL"
        "The sandbox's scratch space is used up." "Raise scratch in the sandbox profile, or write less."
    NetAddressNotGranted Block "NET-ADDRESS-NOT-GRANTED"
        "The address is private, local or special and no rule grants it by CIDR." "Grant it with a net.connect rule that names the CIDR, if it is meant."
    NetTargetInvalid Block "NET-TARGET-INVALID"
        "The request's URL, method or headers are not acceptable." "Send an absolute http URL with plain host, no user info and no control characters."
    NetInbound Block "NET-INBOUND"
        "A tool cannot be connected to: it does not bind a port or listen." "Let the tool ask; nothing can call into it."
    NetTls Block "NET-TLS"
        "The server could not prove who it is, or does not speak TLS." "Check the server's certificate; a private authority is named with `ca` in the [[tool]] entry."
    NetHeadersTooLarge Block "NET-HEADERS-TOO-LARGE"
        "The headers of the message are more than may be." "Send or answer with fewer and shorter headers."
    NetBodyTooLarge Block "NET-BODY-TOO-LARGE"
        "More bytes came or went than one exchange may have." "Ask for less at once."
    NetTimeout Block "NET-TIMEOUT"
        "The server took longer than an exchange may." "Try again later, or ask for less; slow answers are cut off."
    NetResponseInvalid Block "NET-RESPONSE-INVALID"
        "The server's answer can be read in two ways, or is not HTTP." "Report it to whoever runs the server."
    NetRedirects Block "NET-REDIRECTS"
        "The server redirects again and again." "Ask for the final address, or follow more redirects."
    NetConnections Block "NET-CONNECTIONS"
        "The call has as many connections open as it may have." "Close one first."
    SecretUnavailable Block "SECRET-UNAVAILABLE"
        "The secret of this request could not be read, so nothing was sent." "Check the variable or file that the [secret.NAME] entry names."
    SecretLeak Block "SECRET-LEAK"
        "The answer repeats a secret, or could be hiding it, so it was withheld." "Ask for something that does not echo the request; answers to it must not be compressed."
    FsPathInvalid Block "FS-PATH-INVALID"
        "The path is not acceptable." "Use a relative path beneath a preopen, without control characters."
    FsEscape Block "FS-ESCAPE"
        "What the path leads to is not what was decided on." "The path leads out of the preopen or through a link; use the real path."
    FsLink Block "FS-LINK"
        "Links are not created or followed to aliased files." "Copy the file instead of linking it."
    FsSpecial Block "FS-SPECIAL"
        "Only regular files and directories can be opened." "Devices, FIFOs and sockets are refused."
    FsUnavailable Block "FS-UNAVAILABLE"
        "A directory of this call could not be opened or copied." "Check that every offered directory exists and can be read."
    DbUnknown Block "DB-UNKNOWN"
        "This tool is not offered a database of that label." "Offer it in the tool's registration."
    DbReadOnly Block "DB-READ-ONLY"
        "The statement would write, and the connection is read-only." "Use execute, and a database that is offered with mode = \"rw\"."
    DbStatementRefused Block "DB-STATEMENT-REFUSED"
        "The statement does something that is never permitted." "One plain statement; no ATTACH, PRAGMA or extensions."
    DbLimit Block "DB-LIMIT"
        "The statement went over its row, byte, time or step limit." "Ask for less, or raise the limit in the sandbox profile."
    DbMasked Block "DB-MASKED"
        "The statement uses a masked column in a way that could tell its values." "Leave the column out, or join with ON instead of USING; masked columns are NULL in results."
    DbNotIsolated Block "DB-NOT-ISOLATED"
        "This statement cannot be kept from being real in a sandbox." "Offer the database with a replica, or list its tables under rollback if undoing is enough."
    KvUnknown Block "KV-UNKNOWN"
        "This tool is not offered a key-value store of that label." "Offer it under stores in the tool's registration."
    KvReadOnly Block "KV-READ-ONLY"
        "The key-value store is offered for reading only." "Offer it with mode = \"rw\"."
    KvLimit Block "KV-LIMIT"
        "The key, the value or the whole store is larger than it may be." "Store less, or raise max of the store in the tool's registration."
    ModelUnknown Block "MODEL-UNKNOWN"
        "This tool is not offered a model of that name." "Offer it under models in the tool's registration."
    ModelTokens Block "MODEL-TOKENS"
        "The question and its answer may take more tokens than are left." "Ask for less, or raise max_tokens of the model in the tool's registration."
    LimitFuel Block "LIMIT-FUEL"
        "The call used up its fuel." "Raise fuel in the profile, or do less per call."
    LimitMemory Block "LIMIT-MEMORY"
        "The call asked for more memory than it may have." "Raise memory in the profile, or use less."
    LimitDeadline Block "LIMIT-DEADLINE"
        "The call took longer than its deadline." "Raise deadline in the profile, or do less per call."
    LimitHostCalls Block "LIMIT-HOST-CALLS"
        "The call made more host calls than one call may make." "Do less per call."
    LimitOutput Block "LIMIT-OUTPUT"
        "The call produced more output than it may." "Print and return less."
    LimitDepth Block "LIMIT-DEPTH"
        "Tools called tools too deeply." "Call fewer tools from tools."
    LimitTables Block "LIMIT-TABLES"
        "The call asked for larger tables than it may have." "Use fewer function references; the bound is fixed."
    LimitHandles Block "LIMIT-HANDLES"
        "The call held more handles than it may." "Close files, streams and other resources after use."
    LimitRandom Block "LIMIT-RANDOM"
        "The call drew more random bytes than it may." "Draw a seed and expand it in the component."
    LimitConcurrency Throttle "LIMIT-CONCURRENCY"
        "Too many calls run at once." "Wait until one of them has ended; retry-after is when to ask again."
    GrantRevoked Block "GRANT-REVOKED"
        "What was permitted when this was opened is not permitted any more." "See which policy came into force; open it again if the new one permits it."
    AgentStopped Block "AGENT-STOPPED"
        "An operator stopped this agent." "Ask the operator; the stop order is lifted by hand."
    ShuttingDown Block "SHUTTING-DOWN"
        "The runtime is ending and takes no calls." "Try again when it has been started anew."
    HostFault Block "HOST-FAULT"
        "Something in the host itself failed, so the call was ended." "See the host's error log; report it with the decision's id."
    GuestTrap Block "GUEST-TRAP"
        "The component crashed." "See the outcome record; report it to the tool's author."
}

impl Builtin {
    /// The code.
    #[must_use]
    pub fn code(self) -> ReasonCode {
        ReasonCode::builtin(self.info().code)
    }
}

impl From<Builtin> for ReasonCode {
    fn from(b: Builtin) -> Self {
        b.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_valid_and_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for info in BUILTIN_REASONS {
            assert_eq!(ReasonCode::new(info.code).map(|c| c.to_string()), Ok(info.code.to_owned()));
            assert!(seen.insert(info.code), "{} appears twice", info.code);
            assert!(info.sentence.ends_with('.') && info.next.ends_with('.'), "{}", info.code);
        }
    }
}
