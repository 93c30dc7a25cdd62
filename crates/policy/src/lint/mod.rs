//! What is probably not meant in a policy that loads: rules that can never match, never matter, contradict each other,
//! speak of names that do not exist or of arguments that a tool does not have.
//!
//! Whether a rule matters is not guessed from its text: the engine decides calls that tell the rules apart
//! ([`crate::probe`]) with the rule and without it. A finding is only made where these calls are provably all there are;
//! where a condition is opaque (a regular expression) a rule is reported as covered only by one whose conditions it
//! repeats.

mod arguments;
mod cover;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use govrun_verdict::{RuleId, Severity};

use crate::error::{Origin, visible};
use crate::policy::Policy;

/// What kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// No call can match the rule.
    NeverMatches,
    /// More restrictive rules cover the rule: it never has an effect.
    Shadowed,
    /// Other rules already do all that the rule does.
    Redundant,
    /// Two rules want what cannot be had together.
    Contradiction,
    /// The environment's default is never reached for an action with effects.
    DefaultUnreachable,
    /// The rule names an agent, tool or database that the policy does not have.
    Dangling,
    /// A list, budget, profile or target that no rule uses.
    Unused,
    /// A condition about an argument that the tool's function does not have, or that has another type.
    IllTyped,
    /// A rule of high severity that no drill exercises.
    NoDrill,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NeverMatches,
        Self::Shadowed,
        Self::Redundant,
        Self::Contradiction,
        Self::DefaultUnreachable,
        Self::Dangling,
        Self::Unused,
        Self::IllTyped,
        Self::NoDrill,
    ];

    /// The stable name, such as `never-matches`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverMatches => "never-matches",
            Self::Shadowed => "shadowed",
            Self::Redundant => "redundant",
            Self::Contradiction => "contradiction",
            Self::DefaultUnreachable => "default-unreachable",
            Self::Dangling => "dangling",
            Self::Unused => "unused",
            Self::IllTyped => "ill-typed",
            Self::NoDrill => "no-drill",
        }
    }

    /// What it means, in one sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NeverMatches => "No call can match the rule.",
            Self::Shadowed => "More restrictive rules cover the rule, so that it never has an effect.",
            Self::Redundant => "Other rules already do all that the rule does.",
            Self::Contradiction => "Two rules want what cannot be had together.",
            Self::DefaultUnreachable => {
                "The environment's default is never reached for an action with effects."
            }
            Self::Dangling => "The rule names something that the policy does not define.",
            Self::Unused => "Nothing uses the definition.",
            Self::IllTyped => "A condition does not fit the arguments of the tool's function.",
            Self::NoDrill => "No drill exercises a rule of high severity.",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One finding, with its place and every other place it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub code: Code,
    /// Where the thing is written that is to be changed.
    pub at: Origin,
    /// The rule it is about, where it is about one.
    pub rule: Option<RuleId>,
    /// What is the matter.
    pub message: String,
    /// The other places, each with what is there.
    pub others: Vec<(Origin, String)>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "warning[{}]: {}\n  --> {}", self.code, visible(&self.message), self.at)?;
        self.others.iter().try_for_each(|(at, what)| write!(f, "\n  --> {at}: {}", visible(what)))
    }
}

/// The type of an argument, as far as conditions can tell types apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentType {
    /// Text, a character, an enum case.
    Text,
    /// A number.
    Number,
    /// A truth value.
    Bool,
    /// A list of anything.
    List,
    /// Fields by name.
    Record(Vec<(String, ArgumentType)>),
    /// Anything else, which conditions cannot look into.
    Other,
}

/// Parameters of one function, in order.
pub type Signature = Vec<(String, ArgumentType)>;

/// The functions of the registered components, by the name that rules use, such as `payments.send`.
pub type Signatures = BTreeMap<String, Signature>;

/// What is known beside the policy.
#[derive(Debug, Clone, Default)]
pub struct Lint {
    /// The functions of components that could be read.
    pub signatures: Signatures,
    /// The rules that drills exercise; `None` when drills are not looked at.
    pub drilled: Option<BTreeSet<RuleId>>,
}

impl Policy {
    /// Everything that is probably not meant, by place.
    #[must_use]
    pub fn lint(&self, lint: &Lint) -> Vec<Finding> {
        let mut findings = cover::findings(self);
        findings.extend(names::findings(self));
        findings.extend(arguments::findings(self, &lint.signatures));
        findings.extend(lint.drilled.iter().flat_map(|drilled| no_drill(self, drilled)));
        findings.sort_by(|a, b| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message)));
        findings.dedup();
        findings
    }
}

fn no_drill(policy: &Policy, drilled: &BTreeSet<RuleId>) -> Vec<Finding> {
    let severe = policy.rules().filter(|rule| {
        rule.severity >= Severity::High
            && rule.source.contains("severity")
            && rule.mode == govrun_verdict::Mode::Enforce
            && !drilled.contains(&rule.id)
    });
    severe
        .map(|rule| Finding {
            code: Code::NoDrill,
            at: rule.origin.clone(),
            rule: Some(rule.id.clone()),
            message: format!(
                "no drill exercises `{}`, which is of severity {}",
                rule.id,
                format!("{:?}", rule.severity).to_lowercase()
            ),
            others: Vec::new(),
        })
        .collect()
}
