//! Names that a rule uses and nothing defines, and definitions that nothing uses.

use std::collections::{BTreeSet, HashMap};

use toml::de::{DeTable, DeValue};

use super::{Code, Finding};
use crate::error::{Located, Origin, did_you_mean};
use crate::glob::{Anchor, Glob};
use crate::policy::Policy;
use crate::rule::RuleInfo;
use crate::scope::ScopeTest;
use crate::sources::{Sources, has_toml_extension};

pub(super) fn findings(policy: &Policy) -> Vec<Finding> {
    let mut findings = dangling(policy);
    findings.extend(unused(policy));
    findings
}

fn dangling(policy: &Policy) -> Vec<Finding> {
    let agents: Vec<&str> = policy.agents().map(|a| &*a.name).collect();
    let tools: Vec<&str> = policy.tools().map(|t| &*t.name).collect();
    let labels: BTreeSet<&str> = policy.tools().flat_map(|t| t.databases.iter().map(|d| &*d.label)).collect();
    let mut known: HashMap<&Glob, bool> = HashMap::new();
    let mut findings = Vec::new();
    for (rule, info) in policy.rules.iter().zip(policy.rules()) {
        for test in &rule.scope.tests {
            match test {
                ScopeTest::Agent(globs) if !agents.is_empty() => {
                    let missing = globs.iter().filter(|g| !agents.iter().any(|name| g.matches(name)));
                    findings.extend(missing.map(|g| missing_name(info, "registered agent", g, &agents)));
                }
                ScopeTest::Tool(globs) | ScopeTest::Caller(globs) if !tools.is_empty() => {
                    for glob in globs {
                        if !*known.entry(glob).or_insert_with(|| selects_a_tool(glob, &tools)) {
                            findings.push(missing_name(info, "registered tool", glob, &tools));
                        }
                    }
                }
                ScopeTest::Db(names) if !tools.is_empty() => {
                    for name in names.iter().filter(|name| !labels.contains(&***name)) {
                        let near = did_you_mean(name, labels.iter().copied());
                        findings.push(nothing(
                            info,
                            &format!("no tool is offered the database `{name}`"),
                            near,
                        ));
                    }
                }
                _ => {}
            }
        }
    }
    findings
}

/// Whether a function of a registered component, or of one that is not registered, can have this name.
fn selects_a_tool(glob: &Glob, tools: &[&str]) -> bool {
    let component = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
    match glob.anchor() {
        Anchor::Exact(text) => text.starts_with("unregistered:") || tools.contains(&&*component(text)),
        Anchor::Start(lead) if lead.contains('.') => {
            lead.starts_with("unregistered:") || tools.contains(&&*component(lead))
        }
        Anchor::Start(lead) => {
            "unregistered:".starts_with(lead)
                || lead.starts_with("unregistered:")
                || tools.iter().any(|tool| tool.starts_with(lead))
        }
        Anchor::End(_) | Anchor::Nothing => true,
    }
}

fn missing_name(info: &RuleInfo, what: &str, glob: &Glob, known: &[&str]) -> Finding {
    let text = match glob.anchor() {
        Anchor::Exact(text) | Anchor::Start(text) | Anchor::End(text) => text.to_owned(),
        Anchor::Nothing => "*".to_owned(),
    };
    let near = did_you_mean(text.split('.').next().unwrap_or(&text), known.iter().copied());
    nothing(info, &format!("`{}` selects no {what}: `{text}`", info.id), near)
}

fn nothing(info: &RuleInfo, message: &str, near: Option<String>) -> Finding {
    let near = near.map(|near| format!("; {near}")).unwrap_or_default();
    Finding {
        code: Code::Dangling,
        at: info.origin.clone(),
        rule: Some(info.id.clone()),
        message: format!("{message}{near}"),
        others: Vec::new(),
    }
}

/// Kinds of definitions that only rules use, and what each is called.
const DEFINED: [(&str, &str); 4] =
    [("list", "list"), ("budget", "budget"), ("sandbox", "sandbox profile"), ("notify", "notify target")];

fn unused(policy: &Policy) -> Vec<Finding> {
    let Ok(sources) = Sources::from_bundle(policy.bundle()) else { return Vec::new() };
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut defined: Vec<(&str, String, Origin)> = Vec::new();
    for file in sources.files.iter().filter(|f| has_toml_extension(&f.path)) {
        let Ok(table) = DeTable::parse(&file.text) else { continue };
        let located = Located::new(&file.path, &file.text);
        for (key, value) in table.get_ref() {
            let kind = DEFINED.iter().find(|(name, _)| *name == key.get_ref());
            if let (Some((_, what)), Some(named)) = (kind, value.get_ref().as_table()) {
                let names = named
                    .keys()
                    .map(|name| (*what, name.get_ref().to_string(), located.origin(&name.span())));
                defined.extend(names);
            } else {
                texts(value.get_ref(), &mut used);
            }
        }
    }
    defined
        .into_iter()
        .filter(|(_, name, _)| !used.contains(name))
        .map(|(what, name, at)| Finding {
            code: Code::Unused,
            at,
            rule: None,
            message: format!("no rule uses the {what} `{name}`"),
            others: Vec::new(),
        })
        .collect()
}

/// Every text in a value.
fn texts(value: &DeValue<'_>, into: &mut BTreeSet<String>) {
    match value {
        DeValue::String(text) => {
            into.insert(text.to_string());
        }
        DeValue::Array(all) => all.iter().for_each(|item| texts(item.get_ref(), into)),
        DeValue::Table(table) => table.values().for_each(|item| texts(item.get_ref(), into)),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}
