//! Conditions about arguments, against the functions of the registered components.

use govrun_verdict::{Action, RuleVerdict};

use super::{ArgumentType, Code, Finding, Signature, Signatures};
use crate::field::Field;
use crate::policy::Policy;
use crate::predicate::{Predicate, Test, Values};
use crate::probe::predicates;
use crate::rule::{Rule, RuleInfo};
use crate::scope::ScopeTest;

pub(super) fn findings(policy: &Policy, signatures: &Signatures) -> Vec<Finding> {
    let about_calls = policy.rules.iter().zip(policy.rules());
    about_calls
        .filter(|(rule, _)| rule.scope.actions.contains(&Action::ToolCall))
        .flat_map(|(rule, info)| of_rule(rule, info, signatures))
        .collect()
}

fn of_rule(rule: &Rule, info: &RuleInfo, signatures: &Signatures) -> Vec<Finding> {
    let selected = |name: &str| {
        rule.scope.tests.iter().all(|test| match test {
            ScopeTest::Tool(globs) => globs.iter().any(|glob| glob.matches(name)),
            _ => true,
        })
    };
    let functions: Vec<(&String, &Signature)> =
        signatures.iter().filter(|(name, _)| selected(name)).collect();
    let mut findings = Vec::new();
    for predicate in predicates(rule) {
        let Field::Arg(dotted) = &predicate.field else { continue };
        for (name, signature) in &functions {
            if let Some(what) = mistake(dotted, predicate, signature, name) {
                findings.push(Finding {
                    code: Code::IllTyped,
                    at: info.origin.clone(),
                    rule: Some(info.id.clone()),
                    message: format!("{what}{}", consequence(rule)),
                    others: Vec::new(),
                });
            }
        }
    }
    findings
}

/// What a condition that is never known comes to.
fn consequence(rule: &Rule) -> &'static str {
    match rule.effect.level() {
        Some(RuleVerdict::Allow) => ", so that the rule never allows it",
        Some(RuleVerdict::Sandbox | RuleVerdict::Escalate | RuleVerdict::Block) | None => {
            ", so that the rule restricts it whatever the arguments are"
        }
    }
}

fn mistake(dotted: &str, predicate: &Predicate, signature: &Signature, name: &str) -> Option<String> {
    // To ask whether an argument is there is sensible about any function.
    if matches!(predicate.test, Test::Has(_)) {
        return None;
    }
    let mut fields = signature;
    let mut parts = dotted.split('.').peekable();
    while let Some(part) = parts.next() {
        let Some((_, is)) = fields.iter().find(|(name, _)| name == part) else {
            return Some(format!("`{name}` has no argument `{dotted}`"));
        };
        if parts.peek().is_none() {
            let wanted = wanted(&predicate.test)?;
            let fits = wanted.contains(&kind(is));
            return (!fits).then(|| {
                format!("`{dotted}` of `{name}` is a {}, never a {}", kind(is), wanted.join(" or "))
            });
        }
        match is {
            ArgumentType::Record(inner) => fields = inner,
            ArgumentType::Text | ArgumentType::Number | ArgumentType::Bool | ArgumentType::List => {
                return Some(format!("`{dotted}` of `{name}` does not exist: `{part}` is a {}", kind(is)));
            }
            ArgumentType::Other => return None,
        }
    }
    None
}

const fn kind(is: &ArgumentType) -> &'static str {
    match is {
        ArgumentType::Text => "text",
        ArgumentType::Number => "number",
        ArgumentType::Bool => "truth value",
        ArgumentType::List => "list",
        ArgumentType::Record(_) => "record",
        ArgumentType::Other => "value that conditions cannot look into",
    }
}

/// The types that the test can say anything about.
fn wanted(test: &Test) -> Option<&'static [&'static str]> {
    match test {
        Test::Has(_) => None,
        Test::Number(_) | Test::OneOf { values: Values::Number(_), .. } => Some(&["number"]),
        Test::OneOf { values: Values::Bool(_), .. } => Some(&["truth value"]),
        Test::OneOf { values: Values::Text(_), .. }
        | Test::Prefix(_)
        | Test::Suffix(_)
        | Test::Glob(_)
        | Test::Regex(_)
        | Test::Cidr(_) => Some(&["text"]),
        Test::Elements(..) => Some(&["list"]),
        Test::Length(_) => Some(&["text", "list"]),
    }
}
