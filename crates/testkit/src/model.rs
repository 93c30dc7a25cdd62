//! A second, slow policy decision point to hold the real one against: it looks at every rule, knows no index, no
//! compiled predicate and no parser, and matches globs by their exponential definition.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use govrun_verdict::{Action, Call, Digest, Operation, Severity, Value, Verdict};
use rust_decimal::Decimal;

/// What a rule does.
#[derive(Debug, Clone, PartialEq)]
pub enum Does {
    /// Permit, with at most so much fuel.
    Allow(Option<u64>),
    /// Permit in a sandbox with so much fuel, and egress by rule or none.
    Sandbox(u64, bool),
    /// Ask one of these roles.
    Escalate(Vec<&'static str>),
    /// Refuse.
    Block,
    /// Count only.
    Throttle,
}

/// What is asked about an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Asks {
    /// It equals a number.
    Is(i64),
    /// It is greater than a number.
    Above(i64),
    /// It equals a text.
    Says(&'static str),
    /// It does not equal a text.
    SaysNot(&'static str),
    /// It fits a glob.
    Fits(&'static str),
    /// It is there, or not.
    Has(bool),
    /// Some element of a list is one of these.
    AnyIn(&'static [&'static str]),
    /// Every element of a list is one of these.
    AllIn(&'static [&'static str]),
    /// No element of a list is one of these.
    NoneIn(&'static [&'static str]),
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// About one attribute.
    Leaf(&'static str, Asks),
    /// Each of them.
    All(Vec<Tree>),
    /// One of them.
    Any(Vec<Tree>),
    /// Not this.
    Not(Box<Tree>),
}

/// Who wrote a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// A layer that must permit, and grants nothing.
    Ceiling,
    /// A layer like any other.
    Team,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its id, in lower case.
    pub id: String,
    /// What it does.
    pub does: Does,
    /// Only recorded.
    pub shadow: bool,
    /// Enforced for so many hundredths of a percent of the sessions.
    pub canary: Option<u16>,
    /// Its layer.
    pub layer: Option<Layer>,
    /// Of which actions.
    pub actions: Vec<Action>,
    /// Globs by key of `match`.
    pub globs: BTreeMap<&'static str, Vec<&'static str>>,
    /// Ranges: first address and bits.
    pub cidr: Vec<(IpAddr, u8)>,
    /// Conditions that must hold.
    pub when: Vec<Tree>,
    /// Conditions that exempt.
    pub unless: Vec<Tree>,
    /// Budgets.
    pub limit: BTreeSet<&'static str>,
    /// Targets.
    pub notify: BTreeSet<&'static str>,
    /// Severity, if given.
    pub severity: Option<Severity>,
}

/// What a call is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The deciding rule: an id, `builtin:…`, or `-` for the default.
    pub rule: String,
    /// Enforced rules that matched, with whether only by unknown.
    pub matched: Vec<(String, bool)>,
    /// Budgets and the rule that stands for each.
    pub limit: BTreeMap<&'static str, String>,
    /// Targets.
    pub notify: BTreeSet<&'static str>,
    /// Severity.
    pub severity: Severity,
    /// Roles that may approve.
    pub roles: BTreeSet<&'static str>,
    /// Fuel of the grant.
    pub fuel: Option<u64>,
    /// Verdict and rule with the shadow rules enforced.
    pub shadow: Option<(Verdict, String)>,
}

/// The bounds a call is made in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Nothing may leave.
    pub no_egress: bool,
    /// Effects are sandboxed.
    pub sandboxed: bool,
    /// Fuel of the running call.
    pub fuel: Option<u64>,
}

/// Decide by trying every rule. With `ceiling` there is a layer that must permit.
#[must_use]
pub fn decide(rules: &[Rule], default: &Does, ceiling: bool, call: &Call, bounds: Option<Bounds>) -> Answer {
    let mut hits: Vec<(&Rule, bool)> = rules.iter().filter_map(|r| Some((r, matches(r, call)?))).collect();
    hits.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    let enforced: Vec<(&Rule, bool)> = hits.iter().filter(|(r, _)| is_enforced(r, call)).copied().collect();
    let mut answer = resolve(&enforced, default, ceiling, call, bounds);
    if hits.len() > enforced.len() {
        let both = resolve(&hits, default, ceiling, call, bounds);
        answer.shadow = Some((both.verdict, both.rule));
    }
    answer
}

/// A rule with a share is enforced for the sessions whose number, drawn for that rule, is below it.
fn is_enforced(rule: &Rule, call: &Call) -> bool {
    let Some(share) = rule.canary else { return !rule.shadow };
    let text = format!("govrun rollout 1\n{}\n{}\n{}", rule.id, call.agent.name, call.session);
    let number =
        Digest::of(text.as_bytes()).0.iter().take(8).fold(0u128, |n, byte| n * 256 + u128::from(*byte));
    number % 10_000 < u128::from(share)
}

fn level(does: &Does) -> u8 {
    match does {
        Does::Throttle => 0,
        Does::Allow(_) => 1,
        Does::Sandbox(..) => 2,
        Does::Escalate(_) => 3,
        Does::Block => 4,
    }
}

fn resolve(
    hits: &[(&Rule, bool)],
    default: &Does,
    ceiling: bool,
    call: &Call,
    bounds: Option<Bounds>,
) -> Answer {
    let connects = matches!(call.operation, Operation::NetConnect { .. });
    let special = address(call).is_some_and(is_private);
    let permits = |above: bool| {
        hits.iter().filter(move |(rule, _)| above == (ceiling && rule.layer == Some(Layer::Ceiling))).any(
            |(rule, unknown)| {
                !unknown && (1..=3).contains(&level(&rule.does)) && (!special || !rule.cidr.is_empty())
            },
        )
    };
    let (permitted, capped) = (permits(false), ceiling && !permits(true) && (special || !connects));
    let mut floor = match (special, connects) {
        (true, _) if !permitted => Some(("builtin:address-not-granted", &Does::Block)),
        (false, true) => Some(("builtin:public-address", &Does::Allow(None))),
        (false, false) if !permitted => Some(("-", default)),
        _ => None,
    };
    if capped && floor.is_none_or(|(_, does)| *does != Does::Block) {
        floor = Some(("builtin:ceiling", &Does::Block));
    }
    let joined = floor.filter(|(name, _)| *name == "-").map(|(_, does)| does);
    let top = hits.iter().map(|(r, _)| level(&r.does)).chain(floor.map(|(_, d)| level(d))).max().unwrap_or(4);
    let winners: Vec<&(&Rule, bool)> = hits.iter().filter(|(r, _)| level(&r.does) == top).collect();
    let decider = winners.iter().min_by_key(|(r, unknown)| (*unknown, r.id.clone()));
    let mut rule = match (decider, floor) {
        (Some((rule, unknown)), _) => format!("{}{}", rule.id, if *unknown { "?" } else { "" }),
        (None, Some((name, _))) => name.to_owned(),
        (None, None) => "-".to_owned(),
    };
    let all = || hits.iter().map(|(r, _)| &r.does).chain(joined);
    let fuels = all().filter_map(|d| match d {
        Does::Allow(fuel) => *fuel,
        Does::Sandbox(fuel, _) => Some(*fuel),
        Does::Escalate(_) | Does::Block | Does::Throttle => None,
    });
    let mut fuel = fuels.chain(bounds.and_then(|b| b.fuel)).min();
    let roles = all().filter_map(|d| {
        if let Does::Escalate(roles) = d { Some(roles.iter().copied().collect()) } else { None }
    });
    let mut roles: BTreeSet<&str> = roles.reduce(|a: BTreeSet<&str>, b| &a & &b).unwrap_or_default();
    let mut verdict = match top {
        1 => Verdict::Allow,
        2 => Verdict::Sandbox,
        3 if !roles.is_empty() => Verdict::Escalate,
        _ => Verdict::Block,
    };
    let mut notify = winners.iter().flat_map(|(r, _)| r.notify.iter().copied()).collect();
    let severities = winners.iter().map(|(r, _)| r.severity.unwrap_or(usual_severity(top)));
    let mut severity = severities.max().unwrap_or(usual_severity(top));
    let cut_by_bounds = bounds.is_some_and(|b| b.no_egress);
    let cut_by_rules = verdict != Verdict::Block && all().any(|d| matches!(d, Does::Sandbox(_, false)));
    let by_block_rule = top == 4 && !winners.is_empty();
    if call.action().is_egress() && (cut_by_bounds || cut_by_rules) && !by_block_rule {
        (verdict, rule, severity) = (Verdict::Block, "builtin:no-egress".to_owned(), Severity::High);
        notify = BTreeSet::new();
    } else if verdict == Verdict::Allow && bounds.is_some_and(|b| b.sandboxed) && call.action().is_effectful()
    {
        verdict = Verdict::Sandbox;
    }
    let mut limit = BTreeMap::new();
    if verdict == Verdict::Block {
        fuel = None;
    } else {
        for (name, id) in hits.iter().flat_map(|(r, _)| r.limit.iter().map(|l| (*l, r.id.clone()))) {
            limit.entry(name).or_insert(id);
        }
    }
    if verdict != Verdict::Escalate {
        roles.clear();
    }
    let matched = hits.iter().map(|(r, unknown)| (r.id.clone(), *unknown)).collect();
    Answer { verdict, rule, matched, limit, notify, severity, roles, fuel, shadow: None }
}

fn usual_severity(level: u8) -> Severity {
    match level {
        4 => Severity::High,
        3 => Severity::Medium,
        _ => Severity::Info,
    }
}

/// The few special addresses that the model's callers use.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some(),
    }
}

/// `None`: does not match. `Some(unknown)`: matches, perhaps only because something is unknown.
fn matches(rule: &Rule, call: &Call) -> Option<bool> {
    let scope = rule.actions.contains(&call.action())
        && rule
            .globs
            .iter()
            .all(|(key, globs)| text(key, call).is_some_and(|t| globs.iter().any(|g| fits(key, g, &t))))
        && (rule.cidr.is_empty() || in_range(rule, call));
    let holds = and(&rule.when, call);
    let exempt = if rule.unless.is_empty() { Some(false) } else { and(&rule.unless, call) };
    match (scope, holds, exempt, &rule.does) {
        (false, ..) | (_, Some(false), ..) | (_, _, Some(true), _) => None,
        (true, Some(true), Some(false), _) => Some(false),
        (true, _, _, Does::Allow(_)) => None,
        (true, ..) => Some(true),
    }
}

fn and(conditions: &[Tree], call: &Call) -> Option<bool> {
    let truths: Vec<Option<bool>> = conditions.iter().map(|tree| tree_truth(tree, call)).collect();
    if truths.contains(&Some(false)) {
        Some(false)
    } else if truths.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn tree_truth(tree: &Tree, call: &Call) -> Option<bool> {
    match tree {
        Tree::Leaf(attribute, asks) => truth(attribute, asks, call),
        Tree::All(inner) => and(inner, call),
        // By de Morgan: at least one holds unless none does.
        Tree::Any(inner) => {
            let negated: Vec<Tree> = inner.iter().map(|t| Tree::Not(Box::new(t.clone()))).collect();
            and(&negated, call).map(|none| !none)
        }
        Tree::Not(inner) => tree_truth(inner, call).map(|truth| !truth),
    }
}

fn address(call: &Call) -> Option<IpAddr> {
    match &call.operation {
        Operation::NetConnect { ip, .. } | Operation::NetSocket { ip, .. } => Some(*ip),
        _ => None,
    }
}

fn in_range(rule: &Rule, call: &Call) -> bool {
    let Some(ip) = address(call) else { return false };
    rule.cidr.iter().any(|(net, bits)| match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            (0..*bits).all(|i| (net.to_bits() ^ ip.to_bits()) >> (31 - i) & 1 == 0)
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            (0..*bits).all(|i| (net.to_bits() ^ ip.to_bits()) >> (127 - i) & 1 == 0)
        }
        _ => false,
    })
}

fn text(key: &str, call: &Call) -> Option<String> {
    match (key, &call.operation) {
        ("agent", _) => Some(call.agent.name.to_string()),
        ("tenant", _) => call.agent.tenant.as_ref().map(ToString::to_string),
        ("tool", _) => Some(call.tool.name.to_string()),
        ("path", Operation::Fs { path, .. }) => Some(path.clone()),
        ("path", Operation::HttpRequest(target)) => Some(target.path.clone()),
        ("host", Operation::HttpRequest(target)) => Some(target.host.clone()),
        ("host", Operation::NetConnect { host, .. } | Operation::NetDns { host }) => Some(host.clone()),
        ("host", Operation::NetSocket { host, .. }) => host.clone(),
        ("name", Operation::EnvRead { name } | Operation::Secret { name }) => Some(name.clone()),
        ("store", Operation::Kv { store, .. }) => Some(store.clone()),
        ("key", Operation::Kv { key, .. }) => Some(key.clone()),
        ("model", Operation::Model { model, .. }) => Some(model.clone()),
        ("db", Operation::Db { db, .. }) => Some(db.clone()),
        _ => None,
    }
}

/// True, false, or `None` for unknown.
fn truth(attribute: &str, asks: &Asks, call: &Call) -> Option<bool> {
    let owned = text(attribute, call).map(Value::Text);
    let mut value = owned.as_ref();
    if let (Some(path), Operation::ToolCall { args }) = (attribute.strip_prefix("args."), &call.operation) {
        value = args.at(path.split('.'));
        let parent = path.split_once('.').and_then(|(parent, _)| args.at([parent]));
        if matches!(parent, Some(Value::Opaque(_))) {
            return None;
        }
    }
    let value = value.filter(|v| **v != Value::Null);
    if let Some((wanted, all, negate)) = quantified(asks) {
        let Some(Value::List(elements)) = value else { return None };
        let is = |element: &Value| match element {
            Value::Text(text) => Some(wanted.contains(&&**text)),
            _ => None,
        };
        let truths: Vec<Option<bool>> = elements.iter().map(is).collect();
        let decisive = !all;
        let holds = match truths {
            _ if truths.contains(&Some(decisive)) => Some(decisive),
            _ if truths.contains(&None) || (all && truths.is_empty()) => None,
            _ => Some(!decisive),
        };
        return holds.map(|holds| holds != negate);
    }
    match (asks, value) {
        (Asks::Has(wanted), value) => Some(value.is_some() == *wanted),
        (Asks::Is(n), Some(Value::Number(x))) => Some(*x == Decimal::from(*n)),
        (Asks::Above(n), Some(Value::Number(x))) => Some(*x > Decimal::from(*n)),
        (Asks::Says(t), Some(Value::Text(x))) => Some(x == t),
        (Asks::SaysNot(t), Some(Value::Text(x))) => Some(x != t),
        (Asks::Fits(g), Some(Value::Text(x))) => Some(fits(attribute, g, x)),
        _ => None,
    }
}

/// The names, whether every element is asked for, and whether the answer is turned around.
fn quantified(asks: &Asks) -> Option<(&'static [&'static str], bool, bool)> {
    match asks {
        Asks::AnyIn(names) => Some((names, false, false)),
        Asks::AllIn(names) => Some((names, true, false)),
        Asks::NoneIn(names) => Some((names, false, true)),
        Asks::Is(_) | Asks::Above(_) | Asks::Says(_) | Asks::SaysNot(_) | Asks::Fits(_) | Asks::Has(_) => {
            None
        }
    }
}

/// Globs by definition: paths segment by segment, hosts label by label, names as a whole.
fn fits(key: &str, glob: &str, text: &str) -> bool {
    match key {
        "path" => segments(&split(glob, '/'), &split(text, '/')),
        "host" => match glob.strip_prefix("*.") {
            Some(domain) => {
                text.strip_suffix(domain).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
            }
            None => glob == "*" || glob.eq_ignore_ascii_case(text),
        },
        _ => wild(glob, text),
    }
}

fn split(text: &str, at: char) -> Vec<&str> {
    text.split(at).filter(|part| !part.is_empty()).collect()
}

fn segments(glob: &[&str], text: &[&str]) -> bool {
    match (glob, text) {
        ([], []) => true,
        (["**", rest @ ..], _) => {
            segments(rest, text) || matches!(text, [_, tail @ ..] if segments(glob, tail))
        }
        ([g, rest @ ..], [t, tail @ ..]) => wild(g, t) && segments(rest, tail),
        _ => false,
    }
}

fn wild(glob: &str, text: &str) -> bool {
    let (mut g, mut t) = (glob.chars(), text.chars());
    match (g.next(), t.next()) {
        (None, None) => true,
        (Some('*'), next) => wild(g.as_str(), text) || (next.is_some() && wild(glob, t.as_str())),
        (Some('?'), Some(_)) => wild(g.as_str(), t.as_str()),
        (Some(a), Some(b)) if a == b => wild(g.as_str(), t.as_str()),
        _ => false,
    }
}

/// The rule in the policy language. Sandbox rules use the profiles of [`profiles`].
#[must_use]
pub fn to_toml(rule: &Rule) -> String {
    let mut out = format!("[[rule]]\nid = \"{}\"\nreason = \"R-{}\"\n", rule.id, rule.id.to_uppercase());
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let quoted = |text: &str| format!("\"{text}\"");
    let mut keys =
        vec![format!("action = {}", list(rule.actions.iter().map(|a| quoted(a.name())).collect()))];
    keys.extend(
        rule.globs.iter().map(|(k, g)| format!("{k} = {}", list(g.iter().map(|g| quoted(g)).collect()))),
    );
    if !rule.cidr.is_empty() {
        let ranges = rule.cidr.iter().map(|(ip, bits)| format!("\"{ip}/{bits}\"")).collect();
        keys.push(format!("cidr = {}", list(ranges)));
    }
    let _ = writeln!(out, "match = {{ {} }}", keys.join(", "));
    for (key, conditions) in [("when", &rule.when), ("unless", &rule.unless)] {
        if !conditions.is_empty() {
            let _ = writeln!(out, "{key} = {{ all = [{}] }}", trees_toml(conditions));
        }
    }
    out.push_str(&does_toml(&rule.does));
    for (key, names) in [("limit", &rule.limit), ("notify", &rule.notify)] {
        if !names.is_empty() {
            let _ = writeln!(out, "{key} = {}", list(names.iter().map(|n| quoted(n)).collect()));
        }
    }
    if let Some(severity) = rule.severity {
        let _ = writeln!(out, "severity = \"{}\"", format!("{severity:?}").to_lowercase());
    }
    if let Some(share) = rule.canary {
        let _ = writeln!(
            out,
            "rollout = {{ enforce = \"{}.{:02}%\", by = \"session\" }}",
            share / 100,
            share % 100
        );
    } else if rule.shadow {
        out.push_str("mode = \"shadow\"\n");
    }
    out
}

fn trees_toml(trees: &[Tree]) -> String {
    let each: Vec<String> = trees.iter().map(|tree| format!("{{ {} }}", tree_toml(tree))).collect();
    each.join(", ")
}

fn tree_toml(tree: &Tree) -> String {
    match tree {
        Tree::Leaf(attribute, asks) => format!("\"{attribute}\" = {{ {} }}", operator(asks)),
        Tree::All(inner) => format!("all = [{}]", trees_toml(inner)),
        Tree::Any(inner) => format!("any = [{}]", trees_toml(inner)),
        Tree::Not(inner) => format!("not = {{ {} }}", tree_toml(inner)),
    }
}

fn operator(asks: &Asks) -> String {
    match asks {
        Asks::Is(n) => format!("eq = {n}"),
        Asks::Above(n) => format!("gt = {n}"),
        Asks::Says(t) => format!("eq = \"{t}\""),
        Asks::SaysNot(t) => format!("ne = \"{t}\""),
        Asks::AnyIn(names) => format!("any_in = {names:?}"),
        Asks::AllIn(names) => format!("all_in = {names:?}"),
        Asks::NoneIn(names) => format!("none_in = {names:?}"),
        Asks::Fits(g) => format!("glob = \"{g}\""),
        Asks::Has(wanted) => format!("has = {wanted}"),
    }
}

fn does_toml(does: &Does) -> String {
    let roles = |roles: &[&str]| roles.iter().map(|r| format!("\"role:{r}\"")).collect::<Vec<_>>().join(", ");
    match does {
        Does::Allow(None) => "verdict = \"allow\"\n".to_owned(),
        Does::Allow(Some(fuel)) => format!("verdict = \"allow\"\nlimits = {{ fuel = {fuel} }}\n"),
        Does::Sandbox(fuel, egress) => format!("verdict = \"sandbox\"\nsandbox = \"p-{fuel}-{egress}\"\n"),
        Does::Escalate(to) => format!("verdict = \"escalate\"\nescalate = {{ to = [{}] }}\n", roles(to)),
        Does::Block => "verdict = \"block\"\n".to_owned(),
        Does::Throttle => "verdict = \"throttle\"\n".to_owned(),
    }
}

/// The environment's default in the policy language.
#[must_use]
pub fn default_toml(does: &Does) -> String {
    format!("[env.prod.default]\nreason = \"R--\"\n{}", does_toml(does)).replace("R--", "R-DEFAULT")
}

/// The profiles that [`to_toml`] names, for these amounts of fuel.
#[must_use]
pub fn profiles(fuels: &[u64]) -> String {
    let mut out = String::new();
    for fuel in fuels {
        let _ = writeln!(out, "[sandbox.p-{fuel}-true]\nfuel = {fuel}\negress = \"by-rule\"");
        let _ = writeln!(out, "[sandbox.p-{fuel}-false]\nfuel = {fuel}");
    }
    out
}
