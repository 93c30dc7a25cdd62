//! What a policy means, one rule of the language at a time.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::*;
use govrun_verdict::{Durability, Egress, FsOp, Obligations, Operation, Severity, Value, Verdict};

#[test]
fn without_a_matching_rule_the_default_blocks() {
    let p = policy("[[rule]]\nid='a'\nmatch={action='fs.read'}\nverdict='allow'\n");
    assert_eq!(said(&decide(&p, &tool_call(&[]))), "block DEFAULT-DENY -");
    assert_eq!(said(&decide(&p, &fs(FsOp::Read, "/x"))), "allow ALLOWED a");
}
