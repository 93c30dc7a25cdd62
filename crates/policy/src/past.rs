//! Conditions about the past of the calling agent: `labels`, `after`, `count`, `sum`, `first_seen` and `budget_left`; and
//! what a call leaves behind for them.
//!
//! A condition becomes a question with a name. The host answers the questions of a call from what it remembers, and the
//! decision is pure in the answers, so that a record that holds them is enough to derive it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use govrun_verdict::{Action, Ask, AskWhat, Call, Digest, Mark, Origin, Past, RuleId, Traces, Value};
use rust_decimal::Decimal;

use crate::budget::{self, BudgetSpec};
use crate::condition::{Condition, View, all};
use crate::field::{Field, Known};
use crate::limits;
use crate::names;
use crate::policy::Policy;
use crate::predicate::{ElementTest, NumberTest, Quantifier, Truth};
use crate::promotion::canonical_table;
use crate::registry::Registry;
use crate::scope::{self, Scope};
use crate::toml_item::{Entry, Item, Table};
use crate::tool_labels::{Role, ToolLabels};
use crate::when::{self, COMPARISONS, Reader};

/// Most different questions of a policy.
pub const MAX_QUESTIONS: usize = 256;
/// Largest number that `count` may be compared with: so many marks of a question are remembered.
pub const MAX_COUNT: u64 = 1_000;

/// A condition about the past.
#[derive(Debug, Clone)]
pub(crate) enum PastTest {
    Labels(Quantifier, ElementTest),
    Answer(Arc<Question>, Vec<NumberTest>),
}

/// What a condition wants to know.
#[derive(Debug)]
pub(crate) struct Question {
    name: Arc<str>,
    about: About,
}

#[derive(Debug)]
enum About {
    Events(Event),
    Budget(Arc<BudgetSpec>),
    Argument(Field),
    Arguments(Role),
}

/// Calls that are remembered.
#[derive(Debug)]
struct Event {
    scope: Scope,
    when: When,
    within_ms: u64,
    measure: Measure,
}

/// Which outcome of a call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Permitted,
    Blocked,
}

#[derive(Debug)]
enum Measure {
    Count,
    Sum(Field),
    First(Field),
}

/// `[[label]]`: which calls put labels on an agent, or take them away.
#[derive(Debug, Clone)]
pub(crate) struct LabelRule {
    scope: Scope,
    when: Vec<Condition>,
    add: Vec<Arc<str>>,
    remove: Vec<Arc<str>>,
}

/// All questions of a policy, each with the actions of the rules that ask it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Questions {
    questions: BTreeMap<Arc<str>, (Arc<Question>, Vec<Action>)>,
    labels: Vec<LabelRule>,
    /// Actions whose calls ask about the past or leave something behind.
    concerned: Vec<Action>,
}

impl PastTest {
    pub(crate) fn truth(&self, past: Option<&Past>) -> Truth {
        let Some(past) = past else { return Truth::Unknown };
        match self {
            Self::Labels(quantifier, test) => quantifier.over_labels(&past.labels, test),
            Self::Answer(question, tests) => match past.answers.get(&question.name) {
                Some(answer) => Truth::from(tests.iter().all(|test| test.holds(*answer))),
                None => Truth::Unknown,
            },
        }
    }
}

impl Questions {
    /// Take in what the conditions of a rule or label ask.
    pub(crate) fn add(&mut self, conditions: &[Condition], actions: &[Action]) {
        for condition in conditions {
            condition.past(&mut |test| match test {
                PastTest::Labels(..) => self.concern(actions),
                PastTest::Answer(question, _) => {
                    self.concern(actions);
                    if let About::Events(event) = &question.about {
                        self.concern(&event.scope.actions);
                    }
                    let known = self.questions.entry(Arc::clone(&question.name));
                    let (_, asking) = known.or_insert_with(|| (Arc::clone(question), Vec::new()));
                    asking.extend(
                        actions.iter().filter(|action| !asking.contains(action)).copied().collect::<Vec<_>>(),
                    );
                }
            });
        }
    }

    pub(crate) fn too_many(&self) -> bool {
        self.questions.len() > MAX_QUESTIONS
    }

    /// Take in the calls that change labels.
    pub(crate) fn add_labels(&mut self, rules: Vec<LabelRule>) {
        for rule in &rules {
            self.concern(&rule.scope.actions);
            self.add(&rule.when, &rule.scope.actions);
        }
        self.labels = rules;
    }

    fn concern(&mut self, actions: &[Action]) {
        for action in actions {
            if !self.concerned.contains(action) {
                self.concerned.push(*action);
            }
        }
    }
}

impl Policy {
    /// Whether decisions of this policy depend on the agent's past. Without it, nothing needs to be remembered.
    #[must_use]
    pub fn has_past(&self) -> bool {
        !self.questions.concerned.is_empty()
    }

    /// Whether this call asks about the past or leaves something behind: for others nothing needs to be looked up.
    #[must_use]
    pub fn concerns_past(&self, call: &Call) -> bool {
        self.questions.concerned.contains(&call.action())
    }

    /// What to find out before this call is decided.
    #[must_use]
    pub fn asks(&self, call: &Call) -> Vec<Ask> {
        let action = call.action();
        let asked = self.questions.questions.values().filter(|(_, actions)| actions.contains(&action));
        let labels = self.tool_labels(&call.tool.name);
        asked
            .map(|(question, _)| Ask { name: Arc::clone(&question.name), what: question.ask(call, labels) })
            .collect()
    }

    /// What this call leaves behind, in this past: it decides on labels whose rule asks about it.
    #[must_use]
    pub fn traces(&self, call: &Call, now: govrun_verdict::Timestamp, past: Option<&Past>) -> Traces {
        let mut traces = Traces::default();
        for (question, _) in self.questions.questions.values() {
            let About::Events(event) = &question.about else { continue };
            if !event.scope.actions.contains(&call.action()) || !event.scope.holds(call) {
                continue;
            }
            let mark = event.mark(&question.name, call);
            match event.when {
                When::Permitted => traces.permitted.push(mark),
                When::Blocked => traces.blocked.push(mark),
            }
        }
        let view = View { call, now, past, tool: self.tool_labels(&call.tool.name) };
        for label in &self.questions.labels {
            if !label.scope.actions.contains(&call.action()) || !label.scope.holds(call) {
                continue;
            }
            // A label restricts: in doubt it is put on, and not taken off.
            let truth = all(&label.when, &view);
            if truth != Truth::False {
                traces.add.extend_from_slice(&label.add);
            }
            if truth == Truth::True {
                traces.remove.extend_from_slice(&label.remove);
            }
        }
        // What one rule adds no other takes away in the same call.
        let Traces { add, remove, .. } = &mut traces;
        remove.retain(|label| !add.contains(label));
        for labels in [add, remove] {
            labels.sort_unstable();
            labels.dedup();
        }
        traces
    }
}

impl Question {
    fn ask(&self, call: &Call, labels: Option<&ToolLabels>) -> AskWhat {
        match &self.about {
            About::Argument(field) => AskWhat::Origin(field.value(call)),
            About::Arguments(role) => AskWhat::Origin(labels.map_or_else(
                || Value::Opaque("a tool without labels".to_owned()),
                |labels| labels.arguments(*role, call),
            )),
            About::Budget(spec) => AskWhat::Left(Box::new(spec.used_by(
                call,
                &RuleId::builtin("budget-left"),
                &budget::reason(),
            ))),
            About::Events(event) => match &event.measure {
                Measure::Count => AskWhat::Count { within_ms: event.within_ms },
                Measure::Sum(_) => AskWhat::Sum { within_ms: event.within_ms },
                Measure::First(field) => {
                    AskWhat::First { within_ms: event.within_ms, value: budget::part_of(&field.read(call)) }
                }
            },
        }
    }
}

impl Event {
    fn mark(&self, question: &Arc<str>, call: &Call) -> Mark {
        let (mut amount, mut value) = (None, None);
        match &self.measure {
            Measure::Count => amount = Some(Decimal::ONE),
            Measure::Sum(field) => {
                if let Known::Number(n) = field.read(call) {
                    amount = Some(n);
                }
            }
            Measure::First(field) => value = budget::part_of(&field.read(call)),
        }
        Mark { question: Arc::clone(question), keep_ms: self.within_ms, amount, value }
    }
}

impl Quantifier {
    /// Labels are known or not as a whole. Of no labels at all `all_in` is true: there is none that it does not permit.
    fn over_labels(self, labels: &[Arc<str>], test: &ElementTest) -> Truth {
        let is = |label: &Arc<str>| test.accepts(label);
        Truth::from(match self {
            Self::Any => labels.iter().any(is),
            Self::All => labels.iter().all(is),
            Self::None => !labels.iter().any(is),
        })
    }
}

/// Keys of `when` that are read here.
pub(crate) const PAST_KEYS: [&str; 8] =
    ["labels", "after", "count", "sum", "first_seen", "budget_left", "authority", "content"];

/// Read one of [`PAST_KEYS`].
pub(crate) fn read(entry: &Entry<'_>, reader: Reader<'_>) -> Vec<PastTest> {
    match entry.key {
        "labels" => labels(entry, reader.registry),
        "budget_left" => left(entry, reader).into_iter().collect(),
        "authority" => of_role(entry, reader, Role::Authority).into_iter().collect(),
        "content" => of_role(entry, reader, Role::Content).into_iter().collect(),
        _ => event(entry, reader).into_iter().collect(),
    }
}

fn labels(entry: &Entry<'_>, registry: &Registry) -> Vec<PastTest> {
    let Some(table) = entry.item.table("`labels`") else { return Vec::new() };
    if table.is_empty() {
        entry.item.fail_with(
            "an empty condition would hold for every call",
            "such as `labels = { any_in = [\"web\"] }`",
        );
    }
    let tests = table.entries();
    tests
        .iter()
        .filter_map(|operator| when::label_test(operator, registry))
        .map(|(q, t)| PastTest::Labels(q, t))
        .collect()
}

/// `authority = { from = "untrusted" }`
fn of_role(entry: &Entry<'_>, reader: Reader<'_>, role: Role) -> Option<PastTest> {
    if let Some(other) = reader.actions.iter().find(|action| **action != Action::ToolCall) {
        entry.fail(format!("`{other}`, which this rule selects, has no arguments"), None);
    }
    let table = entry.item.table("a condition about arguments")?;
    table.only(&["from"]);
    from(&table.need("from")?, format!("from:{}", entry.key), About::Arguments(role))
}

/// `"args.x" = { from = "untrusted" }`
pub(crate) fn of_argument(item: &Item<'_>, field: &Field) -> Option<PastTest> {
    if !matches!(field, Field::Arg(_)) {
        item.fail(format!("`{field}` is not an argument: where it comes from is not followed"));
    }
    from(item, format!("from:{field}"), About::Argument(field.clone()))
}

fn from(item: &Item<'_>, name: String, about: About) -> Option<PastTest> {
    let untrusted = NumberTest::Eq(Origin::Untrusted.answer());
    let tests = [
        ("untrusted", untrusted),
        ("trusted", NumberTest::Le(Origin::Trusted.answer())),
        ("task", NumberTest::Eq(Origin::Task.answer())),
    ];
    let names: Vec<(&'static str, usize)> =
        tests.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let chosen = item.one_of(&names)?;
    let test = tests.into_iter().nth(chosen).map(|(_, test)| test)?;
    Some(PastTest::Answer(Arc::new(Question { name: name.into(), about }), vec![test]))
}

fn left(entry: &Entry<'_>, reader: Reader<'_>) -> Option<PastTest> {
    let table = entry.item.table("`budget_left`")?;
    table.only(&with_comparisons(&["budget"]));
    let item = table.need("budget")?;
    let (name, spec) = reader.registry.budgets.find(&item, reader.registry.complete)?;
    if let Some(other) = reader.actions.iter().find(|action| !spec.is_of(**action)) {
        item.fail(format!(
            "`{name}` counts by an argument, which `{other}`, that this rule selects, does not have"
        ));
    }
    let about = About::Budget(Arc::clone(spec));
    let question = Question { name: format!("budget_left:{name}").into(), about };
    Some(PastTest::Answer(Arc::new(question), comparisons(&table, true)))
}

/// `after`, `count`, `sum` and `first_seen`: which calls, how far back, and what about them.
fn event(entry: &Entry<'_>, reader: Reader<'_>) -> Option<PastTest> {
    let table = entry.item.table("a condition about the past")?;
    let own: &[&str] = match entry.key {
        "sum" | "first_seen" => &["of", "within", "outcome"],
        _ => &["within", "outcome"],
    };
    let compared = matches!(entry.key, "count" | "sum");
    let known = if compared { with_comparisons(own) } else { own.to_vec() };
    let scope = scope::read_table(&table, &known)?;
    let within_ms = table.need("within").and_then(|item| limits::duration(&item))?.get();
    let outcomes = [("permitted", When::Permitted), ("blocked", When::Blocked)];
    let when = table.get("outcome").map_or(Some(When::Permitted), |item| item.one_of(&outcomes))?;
    let measure = match entry.key {
        "sum" => Measure::Sum(measured(&table, &scope.actions)?),
        "first_seen" => {
            let field = measured(&table, &scope.actions)?;
            if let Some(other) = reader.actions.iter().find(|action| !field.is_of(**action)) {
                entry.fail(
                    format!("`{field}` is not an attribute of `{other}`, which this rule selects"),
                    None,
                );
            }
            Measure::First(field)
        }
        _ => Measure::Count,
    };
    let tests = match entry.key {
        "after" => vec![NumberTest::Ge(Decimal::ONE)],
        "first_seen" => vec![NumberTest::Eq(Decimal::ONE)],
        _ => comparisons(&table, entry.key == "count"),
    };
    let text = canonical_table(&table, &COMPARISONS);
    let digest = Digest::of(format!("govrun question 1\n{}\n{text}", entry.key).as_bytes()).to_string();
    let short: String = digest.chars().skip(3).take(16).collect();
    let about = About::Events(Event { scope, when, within_ms, measure });
    let question = Question { name: format!("{}:{short}", entry.key).into(), about };
    Some(PastTest::Answer(Arc::new(question), tests))
}

fn measured(table: &Table<'_>, actions: &[Action]) -> Option<Field> {
    let item = table.need("of")?;
    let text = item.text()?;
    let field = Field::parse(text);
    match &field {
        None => item.fail_near(format!("unknown attribute `{text}`"), text, crate::field::FIELD_NAMES),
        Some(field) => {
            if let Some(other) = actions.iter().find(|action| !field.is_of(**action)) {
                item.fail(format!("`{text}` is not an attribute of `{other}`, which is counted here"));
            }
        }
    }
    field
}

fn with_comparisons<'k>(own: &[&'k str]) -> Vec<&'k str> {
    own.iter().copied().chain(COMPARISONS).collect()
}

/// The comparisons in the table, at least one. `count` cannot be compared with more than is remembered.
fn comparisons(table: &Table<'_>, counted: bool) -> Vec<NumberTest> {
    let entries = table.entries();
    let given: Vec<&Entry<'_>> = entries.iter().filter(|entry| COMPARISONS.contains(&entry.key)).collect();
    if given.is_empty() {
        table.fail("this is a number: say how much, such as `ge = 5`");
    }
    let tests: Vec<NumberTest> = given.iter().filter_map(|entry| when::comparison(entry)).collect();
    if counted && tests.iter().any(|test| test.largest() > Decimal::from(MAX_COUNT)) {
        table.fail(format!("at most {MAX_COUNT} can be counted"));
    }
    tests
}

/// Read `[[label]]`.
pub(crate) fn read_label(table: &Table<'_>, registry: &Registry) -> Option<LabelRule> {
    table.only(&["on", "when", "add", "remove"]);
    let scope = table.need("on").and_then(|item| scope::read_table(&item.table("`on`")?, &[]))?;
    let reader = Reader { actions: &scope.actions, registry };
    let when = table.get("when").map(|item| reader.conditions(&item)).unwrap_or_default();
    let names = |key: &str| table.get(key).map(label_names).unwrap_or_default();
    let (add, remove) = (names("add"), names("remove"));
    if add.is_empty() && remove.is_empty() {
        table.fail("a label rule has `add` or `remove`: which labels");
    }
    Some(LabelRule { scope, when, add, remove })
}

fn label_names(item: Item<'_>) -> Vec<Arc<str>> {
    let items = item.texts().unwrap_or_default();
    items.iter().filter_map(|(item, _)| names::plain(item, "a label")).collect()
}
