//! Reading `when` and `unless` into conditions.

use std::sync::Arc;

use govrun_verdict::Action;
use regex::{Regex, RegexBuilder};
use rust_decimal::Decimal;
use toml::de::DeValue;

use crate::cidr::Cidr;
use crate::condition::{Condition, MAX_CONDITION_DEPTH};
use crate::error::did_you_mean;
use crate::field::{FIELD_NAMES, Field, Kind};
use crate::glob::{Glob, GlobKind};
use crate::hours;
use crate::past::{self, PAST_KEYS};
use crate::predicate::{ElementTest, NumberTest, Predicate, Quantifier, Test, Values};
use crate::registry::Registry;
use crate::scope::valid_for_all;
use crate::toml_item::{Entry, Item, Table};
use crate::tool_labels::ToolEffect;

/// Longest regular expression in bytes.
pub(crate) const MAX_REGEX_BYTES: usize = 1024;
/// Most bytes of one compiled regular expression.
pub(crate) const MAX_REGEX_COMPILED: usize = 256 << 10;

pub(crate) const OPERATORS: [&str; 27] = [
    "from",
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
    "any_in",
    "all_in",
    "none_in",
    "any_in_list",
    "all_in_list",
    "none_in_list",
    "any_glob",
    "all_glob",
    "none_glob",
];
/// Keys of a condition that are no attributes.
const CONNECTIVES: [&str; 13] = [
    "all",
    "any",
    "not",
    "time",
    "effect",
    "labels",
    "after",
    "count",
    "sum",
    "first_seen",
    "budget_left",
    "authority",
    "content",
];
const HAS: &str = "has";
pub(crate) const COMPARISONS: [&str; 7] = ["eq", "ne", "lt", "le", "gt", "ge", "between"];

/// What the conditions of one rule are read with.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) actions: &'a [Action],
    pub(crate) registry: &'a Registry,
}

impl Reader<'_> {
    /// Read a table of attribute → operators, `all`, `any`, `not` and `time`; all of them must hold.
    pub(crate) fn conditions(self, item: &Item<'_>) -> Vec<Condition> {
        self.nested(item, 0)
    }

    fn nested(self, item: &Item<'_>, depth: usize) -> Vec<Condition> {
        let Some(table) = item.table("a condition") else { return Vec::new() };
        if table.is_empty() {
            item.fail(
                "an empty condition would hold for every call: leave the key out, or say what must hold",
            );
        }
        let mut conditions = Vec::new();
        for entry in table.entries() {
            match entry.key {
                "all" | "any" => conditions.extend(self.several(&entry, depth)),
                "not" => {
                    deeper(&entry, depth);
                    if depth < MAX_CONDITION_DEPTH {
                        conditions.push(Condition::Not(self.nested(&entry.item, depth + 1)));
                    }
                }
                "time" => {
                    conditions.extend(hours::read(&entry.item).map(|h| Condition::Time(Box::new(h))));
                }
                key if PAST_KEYS.contains(&key) => {
                    let tests = past::read(&entry, self).into_iter();
                    conditions.extend(tests.map(|test| Condition::Past(Box::new(test))));
                }
                "effect" => conditions.extend(self.effect(&entry)),
                _ => conditions.extend(self.about_attribute(&entry)),
            }
        }
        conditions
    }

    /// The tables of `all` or `any`.
    fn several(self, entry: &Entry<'_>, depth: usize) -> Option<Condition> {
        deeper(entry, depth);
        if depth >= MAX_CONDITION_DEPTH {
            return None;
        }
        if !entry.item.value().is_array() {
            let example = format!("such as `{} = [{{ port = {{ eq = 443 }} }}, {{ … }}]`", entry.key);
            entry.item.fail_with(format!("`{}` takes a list of conditions", entry.key), example);
            return None;
        }
        let mut inner: Vec<Condition> = Vec::new();
        for item in entry.item.elements()? {
            let mut conditions = self.nested(&item, depth + 1);
            match conditions.pop() {
                Some(only) if conditions.is_empty() => inner.push(only),
                Some(last) => {
                    conditions.push(last);
                    inner.push(Condition::All(conditions));
                }
                None => {}
            }
        }
        Some(if entry.key == "all" { Condition::All(inner) } else { Condition::Any(inner) })
    }

    /// `effect = { in = ["write", "external"] }`
    fn effect(self, entry: &Entry<'_>) -> Option<Condition> {
        let effects =
            [("read", ToolEffect::Read), ("write", ToolEffect::Write), ("external", ToolEffect::External)];
        let table = entry.item.table("`effect`")?;
        table.only(&["in"]);
        let items = table.need("in")?.elements()?;
        Some(Condition::Effect(items.iter().filter_map(|item| item.one_of(&effects)).collect()))
    }

    fn about_attribute(self, entry: &Entry<'_>) -> Vec<Condition> {
        let Some(field) = field(entry) else { return Vec::new() };
        valid_for_all(entry, self.actions, |action| field.is_of(action));
        let Some(operators) = operators(entry) else { return Vec::new() };
        let entries = operators.entries();
        let condition = |operator: &Entry<'_>| {
            if operator.key == "from" {
                return past::of_argument(&operator.item, &field).map(|test| Condition::Past(Box::new(test)));
            }
            let test = test(&field, operator, self.registry)?;
            Some(Condition::Test(Predicate { field: field.clone(), test }))
        };
        entries.iter().filter_map(condition).collect()
    }
}

fn deeper(entry: &Entry<'_>, depth: usize) {
    if depth >= MAX_CONDITION_DEPTH {
        entry.fail(format!("`all`, `any` and `not` nest at most {MAX_CONDITION_DEPTH} deep"), None);
    }
}

fn field(entry: &Entry<'_>) -> Option<Field> {
    let field = Field::parse(entry.key);
    if field.is_none() {
        let help = if entry.key == "args" {
            Some("quote the whole name: `\"args.amount\" = { … }`".to_owned())
        } else {
            did_you_mean(entry.key, FIELD_NAMES.into_iter().chain(CONNECTIVES)).or_else(|| {
                let names: Vec<&str> = FIELD_NAMES.into_iter().chain(CONNECTIVES).collect();
                Some(format!("conditions are about `args.<name>`, {}", names.join(", ")))
            })
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
        "in_list" => Test::OneOf { values: in_list(field, item, registry)?, negated: false },
        "not_in_list" => Test::OneOf { values: in_list(field, item, registry)?, negated: true },
        "prefix" => Test::Prefix(texts(field, item)?),
        "suffix" => Test::Suffix(texts(field, item)?),
        "glob" => Test::Glob(globs(field, item)?),
        "regex" => {
            Test::Regex(item.texts()?.iter().filter_map(|(i, t)| i.checked(regex(field, t))).collect())
        }
        "cidr" => Test::Cidr(ranges(field, item)?),
        "len" => {
            if matches!(field.kind(), Kind::Number | Kind::Address) {
                item.fail(format!("`{field}` has no length"));
            }
            Test::Length(lengths(item))
        }
        "any_in" => elements(field, item, Quantifier::Any)?,
        "all_in" => elements(field, item, Quantifier::All)?,
        "none_in" => elements(field, item, Quantifier::None)?,
        "any_in_list" => elements_in_list(field, item, registry, Quantifier::Any)?,
        "all_in_list" => elements_in_list(field, item, registry, Quantifier::All)?,
        "none_in_list" => elements_in_list(field, item, registry, Quantifier::None)?,
        "any_glob" => elements_glob(field, item, Quantifier::Any)?,
        "all_glob" => elements_glob(field, item, Quantifier::All)?,
        "none_glob" => elements_glob(field, item, Quantifier::None)?,
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
    let values = values(field, items)?;
    let first = items.first()?;
    fits(field, first, !matches!(values, Values::Text(_)), matches!(values, Values::Number(_)));
    Some(Test::OneOf { values, negated })
}

/// Operands of one type, at least one.
fn values(field: &Field, items: &[Item<'_>]) -> Option<Values> {
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
    texts.sort_unstable();
    numbers.sort_unstable();
    Some(if !texts.is_empty() {
        Values::Text(texts.into())
    } else if !numbers.is_empty() {
        Values::Number(numbers.into())
    } else {
        Values::Bool(bools.into())
    })
}

fn elements(field: &Field, item: &Item<'_>, quantifier: Quantifier) -> Option<Test> {
    is_list(field, item);
    let values = values(field, &item.elements()?)?;
    if field.kind() == Kind::List && !matches!(values, Values::Text(_)) {
        item.fail(format!("the elements of `{field}` are names"));
    }
    Some(Test::Elements(quantifier, ElementTest::OneOf(values)))
}

fn elements_in_list(
    field: &Field,
    item: &Item<'_>,
    registry: &Registry,
    quantifier: Quantifier,
) -> Option<Test> {
    is_list(field, item);
    Some(Test::Elements(quantifier, ElementTest::OneOf(folded(field, item, registry)?)))
}

fn elements_glob(field: &Field, item: &Item<'_>, quantifier: Quantifier) -> Option<Test> {
    is_list(field, item);
    Some(Test::Elements(quantifier, ElementTest::Glob(glob_list(field, item)?)))
}

/// An operator on the labels of an agent.
pub(crate) fn label_test(operator: &Entry<'_>, registry: &Registry) -> Option<(Quantifier, ElementTest)> {
    const NAMES: [&str; 9] = [
        "any_in",
        "all_in",
        "none_in",
        "any_in_list",
        "all_in_list",
        "none_in_list",
        "any_glob",
        "all_glob",
        "none_glob",
    ];
    let Some((quantifier, kind)) = operator.key.split_once('_').filter(|_| NAMES.contains(&operator.key))
    else {
        let help =
            did_you_mean(operator.key, NAMES).unwrap_or_else(|| format!("operators: {}", NAMES.join(", ")));
        operator.fail(format!("unknown operator `{}` on labels", operator.key), Some(help));
        return None;
    };
    let quantifier = match quantifier {
        "any" => Quantifier::Any,
        "all" => Quantifier::All,
        _ => Quantifier::None,
    };
    // Labels are plain names, compared as tenants are.
    let (field, item) = (&Field::Tenant, &operator.item);
    let test = match kind {
        "in" => ElementTest::OneOf(values(field, &item.elements()?)?),
        "in_list" => ElementTest::OneOf(folded(field, item, registry)?),
        _ => ElementTest::Glob(glob_list(field, item)?),
    };
    if let ElementTest::OneOf(Values::Number(_) | Values::Bool(_)) = test {
        item.fail("labels are texts");
    }
    Some((quantifier, test))
}

fn is_list(field: &Field, item: &Item<'_>) {
    if !matches!(field.kind(), Kind::List | Kind::Any) {
        item.fail_with(
            format!("`{field}` is not a list"),
            "ask about one value with `in`, `in_list` or `glob`",
        );
    }
}

/// Report operands that an attribute of known type can never equal.
fn fits(field: &Field, item: &Item<'_>, no_texts: bool, numbers: bool) {
    match field.kind() {
        Kind::Number if !numbers => item.fail(format!("`{field}` is a number")),
        Kind::Text if no_texts => item.fail(format!("`{field}` is text")),
        Kind::Address => item.fail_with(format!("`{field}` is an address"), "ask about it with `cidr`"),
        Kind::List => {
            let help =
                "ask about its elements with `any_in`, `all_in`, `none_in`, or with `any_glob` and so on";
            item.fail_with(format!("`{field}` is a list"), help);
        }
        Kind::Text | Kind::Number | Kind::Any => {}
    }
}

fn in_list(field: &Field, item: &Item<'_>, registry: &Registry) -> Option<Values> {
    fits(field, item, false, false);
    folded(field, item, registry)
}

/// The entries of a list, in the spelling of the attribute.
fn folded(field: &Field, item: &Item<'_>, registry: &Registry) -> Option<Values> {
    let (_, list) = registry.lists.find(item, registry.complete)?;
    let mut folded: Vec<Box<str>> = Vec::new();
    if list.iter().any(|entry| *field.fold(entry) != **entry) {
        folded.extend(list.iter().map(|entry| Box::from(field.fold(entry))));
        folded.sort_unstable();
    }
    Some(Values::Text(if folded.is_empty() { Arc::clone(list) } else { folded.into() }))
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
    glob_list(field, item)
}

fn glob_list(field: &Field, item: &Item<'_>) -> Option<Vec<Glob>> {
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

pub(crate) fn comparison(operator: &Entry<'_>) -> Option<NumberTest> {
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
