//! `[[tool_labels]]`: what a tool function does and which of its arguments matter, so that one rule serves many tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use govrun_verdict::{Call, Operation, Value};

use crate::names;
use crate::toml_item::{Item, Table};

/// What a tool function does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolEffect {
    /// It only looks.
    Read,
    /// It changes something that its owner can change back.
    Write,
    /// It reaches others: a message, a payment, a page anybody can see.
    External,
}

/// Labels of one tool function.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolLabels {
    /// What it does; `None` when nobody said.
    pub effect: Option<ToolEffect>,
    /// Arguments that choose who or what is affected.
    pub authority: Vec<Arc<str>>,
    /// Arguments that carry text or links outwards.
    pub content: Vec<Arc<str>>,
    /// Whether its output is text that outsiders can write. It is unless somebody says that it is trusted.
    pub untrusted: bool,
}

pub(crate) type AllLabels = BTreeMap<Arc<str>, ToolLabels>;

/// Which arguments of a tool are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Authority,
    Content,
}

impl ToolLabels {
    /// The arguments with this role, as one list; opaque when the arguments cannot be told apart.
    pub(crate) fn arguments(&self, role: Role, call: &Call) -> Value {
        let names = match role {
            Role::Authority => &self.authority,
            Role::Content => &self.content,
        };
        match &call.operation {
            Operation::ToolCall { args: Value::Record(fields) } => Value::List(
                fields
                    .iter()
                    .filter(|(name, _)| names.iter().any(|n| **n == **name))
                    .map(|(_, v)| v.clone())
                    .collect(),
            ),
            _ => Value::Opaque("arguments without names".to_owned()),
        }
    }
}

/// Take in one `[[tool_labels]]`.
pub(crate) fn read(table: &Table<'_>, all: &mut AllLabels) {
    table.only(&["tool", "effect", "authority", "content", "output"]);
    let effects =
        [("read", ToolEffect::Read), ("write", ToolEffect::Write), ("external", ToolEffect::External)];
    let effect = table.get("effect").and_then(|item| item.one_of(&effects));
    let outputs = [("trusted", false), ("untrusted", true)];
    let untrusted = table.get("output").and_then(|item| item.one_of(&outputs)).unwrap_or(true);
    let arguments = |key: &str| table.get(key).map(|item| arguments(&item)).unwrap_or_default();
    let labels =
        ToolLabels { effect, authority: arguments("authority"), content: arguments("content"), untrusted };
    let Some(item) = table.need("tool") else { return };
    let Some(tool) = names::plain(&item, "a tool function, such as `payments.send`") else { return };
    if all.insert(Arc::clone(&tool), labels).is_some() {
        item.fail(format!("the labels of `{tool}` are already given"));
    }
}

fn arguments(item: &Item<'_>) -> Vec<Arc<str>> {
    item.texts().unwrap_or_default().into_iter().map(|(_, text)| Arc::from(text)).collect()
}
