//! Reading `when` and `unless` into predicates.

use std::sync::Arc;

use govrun_verdict::Action;
use regex::{Regex, RegexBuilder};
use rust_decimal::Decimal;
use toml::de::DeValue;

use crate::cidr::Cidr;
use crate::error::did_you_mean;
use crate::field::{FIELD_NAMES, Field};
use crate::glob::{Glob, GlobKind};
use crate::predicate::{NumberTest, Predicate, Test, Values};
use crate::registry::Registry;
use crate::scope::valid_for_all;
use crate::toml_item::{Entry, Item, Table};

/// Longest regular expression in bytes.
pub(crate) const MAX_REGEX_BYTES: usize = 1024;
/// Most bytes of one compiled regular expression.
pub(crate) const MAX_REGEX_COMPILED: usize = 256 << 10;

const OPERATORS: [&str; 17] = [
    "eq",
    "ne",
    "in",
    "not_in",
    "in_list",
    "not_in_list",
    "lt",
    "le",
    "gt",
    "ge",
    "between",
    "prefix",
    "suffix",
    "glob",
    "regex",
    "len",
    "cidr",
];
const HAS: &str = "has";
const COMPARISONS: [&str; 7] = ["eq", "ne", "lt", "le", "gt", "ge", "between"];

/// Read a table of attribute → operators; all of them must hold.
pub(crate) fn read(item: &Item<'_>, actions: &[Action], registry: &Registry) -> Vec<Predicate> {
    let Some(table) = item.table("a condition") else { return Vec::new() };
    if table.is_empty() {
        item.fail("an empty condition would hold for every call: leave the key out, or say what must hold");
    }
    let mut predicates = Vec::new();
    for entry in table.entries() {
        let Some(field) = field(&entry) else { continue };
        valid_for_all(&entry, actions, |action| field.is_of(action));
        let Some(operators) = operators(&entry) else { continue };
        for operator in operators.entries() {
            let test = test(&field, &operator, registry);
            predicates.extend(test.map(|test| Predicate { field: field.clone(), test }));
        }
    }
    predicates
}

fn field(entry: &Entry<'_>) -> Option<Field> {
    let field = Field::parse(entry.key);
    if field.is_none() {
        let help = if entry.key == "args" {
            Some("quote the whole name: `\"args.amount\" = { … }`".to_owned())
        } else {
            did_you_mean(entry.key, FIELD_NAMES)
                .or_else(|| Some(format!("attributes are `args.<name>`, {}", FIELD_NAMES.join(", "))))
        };
        entry.fail(format!("unknown attribute `{}`", entry.key), help);
    }
    field
}

fn operators<'t>(entry: &Entry<'t>) -> Option<Table<'t>> {
    if !entry.item.value().is_table() {
        entry
            .item
            .fail_with("a condition is a table of operators", "such as `{ eq = … }` or `{ gt = 10000 }`");
        return None;
    }
    let table = entry.item.table("a condition")?;
    if table.is_empty() {
        entry.item.fail("an empty condition would hold for every call: say what must hold");
    }
    Some(table)
}

fn test(field: &Field, operator: &Entry<'_>, registry: &Registry) -> Option<Test> {
    let item = &operator.item;
    Some(match operator.key {
        "has" => Test::Has(item.boolean()?),
        "eq" => one_of(field, &[*item], false)?,
        "ne" => one_of(field, &[*item], true)?,
        "in" => one_of(field, &item.elements()?, false)?,
        "not_in" => one_of(field, &item.elements()?, true)?,
        "in_list" => in_list(field, item, registry, false)?,
        "not_in_list" => in_list(field, item, registry, true)?,
        "prefix" => Test::Prefix(texts(field, item)?),
        "suffix" => Test::Suffix(texts(field, item)?),
        "glob" => Test::Glob(globs(field, item)?),
        "regex" => {
            Test::Regex(item.texts()?.iter().filter_map(|(i, t)| i.checked(regex(field, t))).collect())
        }
        "cidr" => Test::Cidr(ranges(field, item)?),
        "len" => {
            fits(field, item, false, false);
            Test::Length(lengths(item))
        }
        key if COMPARISONS.contains(&key) => {
            fits(field, item, true, true);
            Test::Number(comparison(operator)?)
        }
        unknown => {
            let all = OPERATORS.into_iter().chain([HAS]);
            let help = did_you_mean(unknown, all.clone());
            let help = help.unwrap_or_else(|| format!("operators: {}", all.collect::<Vec<_>>().join(", ")));
            operator.fail(format!("unknown operator `{unknown}`"), Some(help));
            return None;
        }
    })
}

fn ranges(field: &Field, item: &Item<'_>) -> Option<Vec<Cidr>> {
    if !matches!(field, Field::Ip | Field::Host | Field::Arg(_)) {
        item.fail(format!("`{field}` is never an address"));
    }
    Some(item.texts()?.iter().filter_map(|(item, text)| item.checked(Cidr::parse(text))).collect())
}

/// One operand, with its type.
enum Operand {
    Text(Box<str>),
    Number(Decimal),
    Bool(bool),
}

fn operand(field: &Field, item: &Item<'_>) -> Option<Operand> {
    match item.value() {
        DeValue::String(text) => Some(Operand::Text(field.fold(text).into())),
        DeValue::Integer(_) | DeValue::Float(_) => item.decimal().map(Operand::Number),
        DeValue::Boolean(b) => Some(Operand::Bool(*b)),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            item.fail("a string, a number, true or false is needed here");
            None
        }
    }
}

fn one_of(field: &Field, items: &[Item<'_>], negated: bool) -> Option<Test> {
    let (mut texts, mut numbers, mut bools) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        match operand(field, item)? {
            Operand::Text(text) => texts.push(text),
            Operand::Number(number) => numbers.push(number),
            Operand::Bool(b) => bools.push(b),
        }
        let types = [texts.is_empty(), numbers.is_empty(), bools.is_empty()];
        if types.iter().filter(|empty| !**empty).count() > 1 {
            item.fail("values of different types cannot be listed together");
        }
    }
    fits(field, items.first()?, texts.is_empty(), !numbers.is_empty());
    texts.sort_unstable();
    numbers.sort_unstable();
    let values = if !texts.is_empty() {
        Values::Text(texts.into())
    } else if !numbers.is_empty() {
        Values::Number(numbers.into())
    } else {
        Values::Bool(bools.into())
    };
    Some(Test::OneOf { values, negated })
}

/// Report operands that an attribute of known type can never equal.
fn fits(field: &Field, item: &Item<'_>, no_texts: bool, numbers: bool) {
    match field {
        Field::Arg(_) => {}
        Field::Port | Field::Tokens if !numbers => item.fail(format!("`{field}` is a number")),
        Field::Tables | Field::Columns | Field::Functions => {
            item.fail_with(format!("`{field}` is a list"), "ask about it with `len`");
        }
        Field::Ip => item.fail_with("`ip` is an address", "ask about it with `cidr`"),
        Field::Agent
        | Field::Tenant
        | Field::Tool
        | Field::Caller
        | Field::Path
        | Field::Host
        | Field::Scheme
        | Field::Method
        | Field::Db
        | Field::Statement
        | Field::Name
        | Field::Transport
        | Field::Store
        | Field::Key
        | Field::Model
        | Field::Stmt
            if no_texts =>
        {
            item.fail(format!("`{field}` is text"));
        }
        Field::Agent
        | Field::Tenant
        | Field::Tool
        | Field::Caller
        | Field::Path
        | Field::Host
        | Field::Port
        | Field::Scheme
        | Field::Method
        | Field::Db
        | Field::Statement
        | Field::Name
        | Field::Transport
        | Field::Store
        | Field::Key
        | Field::Model
        | Field::Tokens
        | Field::Stmt => {}
    }
}

fn in_list(field: &Field, item: &Item<'_>, registry: &Registry, negated: bool) -> Option<Test> {
    let (_, list) = registry.lists.find(item, registry.complete)?;
    fits(field, item, false, false);
    let mut folded: Vec<Box<str>> = Vec::new();
    if list.iter().any(|entry| *field.fold(entry) != **entry) {
        folded.extend(list.iter().map(|entry| Box::from(field.fold(entry))));
        folded.sort_unstable();
    }
    let values = if folded.is_empty() { Arc::clone(list) } else { folded.into() };
    Some(Test::OneOf { values: Values::Text(values), negated })
}

/// Texts to compare with a part of the attribute; an empty one would be part of everything.
fn texts(field: &Field, item: &Item<'_>) -> Option<Vec<Box<str>>> {
    let texts = item.texts()?;
    fits(field, item, false, false);
    for (item, _) in texts.iter().filter(|(_, text)| text.is_empty()) {
        item.fail("an empty text is part of every text");
    }
    Some(texts.iter().map(|(_, text)| field.fold(text).into()).collect())
}

fn globs(field: &Field, item: &Item<'_>) -> Option<Vec<Glob>> {
    fits(field, item, false, false);
    let kind = match field {
        Field::Path => GlobKind::Path,
        Field::Host => GlobKind::Host,
        Field::Agent
        | Field::Tenant
        | Field::Tool
        | Field::Caller
        | Field::Port
        | Field::Scheme
        | Field::Method
        | Field::Db
        | Field::Statement
        | Field::Name
        | Field::Ip
        | Field::Transport
        | Field::Store
        | Field::Key
        | Field::Model
        | Field::Tokens
        | Field::Stmt
        | Field::Tables
        | Field::Columns
        | Field::Functions
        | Field::Arg(_) => GlobKind::Name,
    };
    Some(item.texts()?.iter().filter_map(|(i, text)| i.checked(Glob::new(&field.fold(text), kind))).collect())
}

/// A regular expression that must cover the whole text.
fn regex(field: &Field, text: &str) -> Result<Regex, String> {
    if text.is_empty() || text.len() > MAX_REGEX_BYTES {
        return Err(format!("a regular expression has 1 to {MAX_REGEX_BYTES} bytes"));
    }
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .case_insensitive(*field == Field::Host || *field == Field::Scheme || *field == Field::Method)
            .size_limit(MAX_REGEX_COMPILED)
            .dfa_size_limit(MAX_REGEX_COMPILED)
            .nest_limit(32)
            .build()
            .map_err(|e| format!("not a regular expression that can be used: {}", last_line(&e.to_string())))
    };
    // INVARIANT: compiled by itself first; `a)|(?:b` is no expression, but would be one between the anchors.
    build(text)?;
    build(&format!(r"\A(?:{text})\z"))
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

fn lengths(item: &Item<'_>) -> Vec<NumberTest> {
    if item.value().is_integer() {
        return item.integer(0..=u64::MAX).map(|n| NumberTest::Eq(n.into())).into_iter().collect();
    }
    let Some(table) = item.table("`len`") else { return Vec::new() };
    table.only(&COMPARISONS);
    if table.is_empty() {
        item.fail("`len` takes a number, or a table of comparisons such as `{ le = 100 }`");
    }
    table.entries().iter().filter(|e| COMPARISONS.contains(&e.key)).filter_map(comparison).collect()
}

fn comparison(operator: &Entry<'_>) -> Option<NumberTest> {
    if operator.key == "between" {
        return between(&operator.item);
    }
    let number = operator.item.decimal()?;
    Some(match operator.key {
        "eq" => NumberTest::Eq(number),
        "ne" => NumberTest::Ne(number),
        "lt" => NumberTest::Lt(number),
        "le" => NumberTest::Le(number),
        "gt" => NumberTest::Gt(number),
        "ge" => NumberTest::Ge(number),
        _ => return None,
    })
}

fn between(item: &Item<'_>) -> Option<NumberTest> {
    let ends: Vec<Decimal> = item.elements()?.iter().filter_map(Item::decimal).collect();
    match *ends.as_slice() {
        [low, high] if low <= high => Some(NumberTest::Between(low, high)),
        _ => {
            item.fail("`between` takes two numbers, the smaller first");
            None
        }
    }
}
