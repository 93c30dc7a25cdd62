//! Values that answer the questions about one attribute in every possible way.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use govrun_verdict::{Agent, Call, Digest, Scheme, SqlFacts, Stream, Transport};
use rust_decimal::Decimal;

use super::attr::{self, Attr, Val};
use super::nfa::{Pattern, combinations};
use super::{Asked, Dimension};
use crate::address;
use crate::cidr::Cidr;
use crate::policy::Policy;
use crate::predicate::{NumberTest, Test, Values};
use crate::scope::ScopeTest;

/// Most texts of one condition that are told apart from each other as patterns.
const MAX_LITERALS: usize = 24;
/// Most texts of a longer list that are tried one by one.
const MAX_TRIED: usize = 64;
/// Longest text or list that is made to test a length.
const MAX_LENGTH: usize = 2_048;

/// The values of `attr`, one for each combination of answers.
pub(super) fn dimension(policies: &[&Policy], base: &Call, attr: Attr, asked: &Asked<'_>) -> Dimension {
    let (candidates, complete) = candidates(policies, &attr, asked);
    let mut seen = BTreeSet::new();
    let mut values = Vec::new();
    for value in candidates {
        let mut call = base.clone();
        if attr::set(&mut call, &attr, &value) && seen.insert(answers(&call, asked, &value)) {
            values.push(value);
        }
    }
    Dimension { attr, values, complete }
}

/// What a call answers: a letter for each question.
fn answers(call: &Call, asked: &Asked<'_>, value: &Val) -> Vec<u8> {
    let special = matches!(value, Val::Ip(ip) if address::special(*ip).is_some());
    let scope = asked.scope.iter().map(|test| u8::from(test.holds(call)));
    let predicates = asked.predicates.iter().map(|p| match p.truth(call) {
        crate::predicate::Truth::False => 0,
        crate::predicate::Truth::Unknown => 1,
        crate::predicate::Truth::True => 2,
    });
    scope.chain(predicates).chain(std::iter::once(u8::from(special))).collect()
}

fn candidates(policies: &[&Policy], attr: &Attr, asked: &Asked<'_>) -> (Vec<Val>, bool) {
    let texts = |kind| {
        let (texts, complete) = texts(asked, kind);
        (texts.into_iter().map(Val::Text).collect::<Vec<Val>>(), complete)
    };
    let with = |(mut values, complete): (Vec<Val>, bool), more: &[Val]| {
        values.extend_from_slice(more);
        (values, complete)
    };
    match attr {
        Attr::Agent => agents(policies, asked),
        Attr::Tool => texts(Kind::Tool),
        Attr::Caller => with(texts(Kind::Tool), &[Val::Absent]),
        Attr::Component => (digests(asked), true),
        Attr::Path => texts(Kind::Path),
        Attr::Host => with(texts(Kind::Host), &[Val::Absent]),
        Attr::Port => (numbers(asked, 1, Some(65_535)), true),
        Attr::Tokens => (numbers(asked, 0, None), true),
        Attr::Scheme => (vec![Val::Scheme(Scheme::Https), Val::Scheme(Scheme::Http)], true),
        Attr::Method => texts(Kind::Word),
        Attr::Ip => (addresses(asked), true),
        Attr::Transport => (vec![Val::Transport(Transport::Tcp), Val::Transport(Transport::Udp)], true),
        Attr::Stream => (vec![Val::Stream(Stream::Stdout), Val::Stream(Stream::Stderr)], true),
        Attr::Db | Attr::Store | Attr::Name | Attr::Model => texts(Kind::Word),
        Attr::Statement | Attr::Key => texts(Kind::Any),
        Attr::Facts => facts(asked),
        Attr::Arg(dotted) => arguments(asked, dotted),
    }
}

/// What texts of an attribute look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Word,
    Tool,
    Path,
    Host,
}

impl Kind {
    fn grows(self, text: &str, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::Word => c != '/',
            Self::Tool => c != '/' && !(c == '.' && text.is_empty()),
            Self::Path => {
                // Nothing that has a segment of dots can become a path again.
                let dots = c == '/' && matches!(text.rsplit('/').next(), Some("." | ".."));
                ((text.is_empty() == (c == '/')) || (!text.is_empty() && !text.ends_with('/'))) && !dots
            }
            Self::Host => c != '/' && !(c == '.' && (text.is_empty() || text.ends_with('.'))),
        }
    }

    fn whole(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Word => !text.is_empty(),
            Self::Tool => {
                text.split_once('.').is_some_and(|(component, f)| !component.is_empty() && !f.is_empty())
            }
            Self::Path => {
                text == "/"
                    || text.strip_prefix('/').is_some_and(|relative| {
                        relative.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
                    })
            }
            Self::Host => !text.is_empty() && !text.ends_with('.'),
        }
    }
}

impl Kind {
    /// All that the other two look at.
    fn shape(self, text: &str) -> u8 {
        let last = |separator| text.rsplit(separator).next().unwrap_or_default();
        match self {
            Self::Any => 0,
            Self::Word => u8::from(text.is_empty()),
            Self::Tool => match text.split_once('.') {
                None => u8::from(!text.is_empty()),
                Some((_, function)) => 2 + u8::from(!function.is_empty()),
            },
            Self::Host => u8::from(last('.').is_empty()),
            Self::Path => match last('/') {
                "" => u8::from(text.len() > 1),
                "." => 2,
                ".." => 3,
                _ => 4,
            },
        }
    }
}

/// The registered agents; where there are none, any that the rules could be about.
fn agents(policies: &[&Policy], asked: &Asked<'_>) -> (Vec<Val>, bool) {
    let mut agents: Vec<Arc<Agent>> = policies.iter().flat_map(|p| p.agents().cloned()).collect();
    if !agents.is_empty() {
        agents.dedup();
        return (agents.into_iter().map(Val::Agent).collect(), true);
    }
    let (names, complete) = texts(asked, Kind::Word);
    let mut tenants: Vec<Option<Arc<str>>> = vec![None];
    for test in &asked.scope {
        if let ScopeTest::Tenant(all) = test {
            tenants.extend(all.iter().cloned().map(Some));
        }
    }
    for (name, tenant) in names.iter().flat_map(|n| tenants.iter().map(move |t| (n, t))) {
        agents.push(Arc::new(Agent { name: name.as_str().into(), tenant: tenant.clone() }));
    }
    // Conditions about the tenant beside its name are not told apart here.
    let about_tenant = asked.predicates.iter().any(|p| p.field == crate::field::Field::Tenant);
    (agents.into_iter().map(Val::Agent).collect(), complete && !about_tenant)
}

fn digests(asked: &Asked<'_>) -> Vec<Val> {
    let named = asked.scope.iter().filter_map(|test| match test {
        ScopeTest::Digest(all) => Some(all),
        _ => None,
    });
    let other = Digest::of(b"a component that no rule names");
    named.flatten().copied().chain([other]).map(Val::Component).collect()
}

/// The patterns of one question, or `None` when it is not about text as a pattern.
fn pattern(test: &Test) -> Option<Pattern> {
    let all = |patterns: Vec<Pattern>| Some(Pattern::either(&patterns));
    match test {
        Test::OneOf { values: Values::Text(texts), .. } if texts.len() <= MAX_LITERALS => {
            all(texts.iter().map(|t| Pattern::literal(t)).collect())
        }
        Test::Prefix(texts) => all(texts.iter().map(|t| Pattern::prefix(t)).collect()),
        Test::Suffix(texts) => all(texts.iter().map(|t| Pattern::suffix(t)).collect()),
        Test::Glob(globs) => all(globs.iter().map(Pattern::glob).collect()),
        Test::Has(_)
        | Test::OneOf { .. }
        | Test::Number(_)
        | Test::Regex(_)
        | Test::Length(_)
        | Test::Cidr(_)
        | Test::Elements(..) => None,
    }
}

fn scope_pattern(test: &ScopeTest) -> Option<Pattern> {
    let words = |all: &[Arc<str>]| {
        Some(Pattern::either(&all.iter().map(|t| Pattern::literal(t)).collect::<Vec<_>>()))
    };
    match test {
        ScopeTest::Agent(globs)
        | ScopeTest::Tool(globs)
        | ScopeTest::Caller(globs)
        | ScopeTest::Path(globs)
        | ScopeTest::Host(globs)
        | ScopeTest::Name(globs)
        | ScopeTest::Key(globs)
        | ScopeTest::Model(globs) => {
            Some(Pattern::either(&globs.iter().map(Pattern::glob).collect::<Vec<_>>()))
        }
        ScopeTest::Db(names) | ScopeTest::Store(names) => words(names),
        ScopeTest::Method(words) => {
            Some(Pattern::either(&words.iter().map(|t| Pattern::literal(t)).collect::<Vec<_>>()))
        }
        ScopeTest::Tenant(_)
        | ScopeTest::Digest(_)
        | ScopeTest::Port(_)
        | ScopeTest::Scheme(_)
        | ScopeTest::Cidr(_)
        | ScopeTest::Stream(_)
        | ScopeTest::Transport(_) => None,
    }
}

/// Texts for every combination of answers, and whether these are all.
fn texts(asked: &Asked<'_>, kind: Kind) -> (Vec<String>, bool) {
    let tests = || asked.predicates.iter().map(|p| &p.test);
    let mut patterns: Vec<Pattern> = asked.scope.iter().filter_map(|test| scope_pattern(test)).collect();
    patterns.extend(tests().filter_map(pattern));
    let found = combinations(
        &patterns,
        |text, c| kind.grows(text, c),
        |text| kind.whole(text),
        |text| kind.shape(text),
    );
    let mut complete = found.complete;
    let mut texts = found.texts;
    let mut lists: Vec<&Arc<[Box<str>]>> = Vec::new();
    for test in tests() {
        match test {
            Test::OneOf { values: Values::Text(list), .. } if list.len() > MAX_LITERALS => {
                if !lists.contains(&list) {
                    lists.push(list);
                }
            }
            Test::Regex(_) | Test::Cidr(_) => complete = false,
            // Lists are told apart by their length only.
            Test::Elements(..) => complete = false,
            Test::Length(lengths) => {
                complete = complete && patterns.is_empty() && lists.is_empty();
                texts.extend(near(lengths).into_iter().map(|n| "x".repeat(n)));
            }
            Test::Has(_)
            | Test::OneOf { .. }
            | Test::Number(_)
            | Test::Prefix(_)
            | Test::Suffix(_)
            | Test::Glob(_) => {}
        }
    }
    // A long list by itself is a member and one that is none; beside anything else it is tried, not proved.
    complete = complete && (lists.is_empty() || (lists.len() == 1 && patterns.is_empty()));
    let tried = lists.iter().flat_map(|list| list.iter().take(MAX_TRIED));
    texts.splice(0..0, tried.map(|t| t.to_string()).filter(|t| kind.whole(t)));
    let strangers = ["x".to_owned(), "no-member-of-any-list".to_owned()];
    texts.extend(strangers.into_iter().filter(|t| !lists.is_empty() && kind.whole(t)));
    (texts, complete)
}

/// Lengths around the bounds of these tests.
fn near(lengths: &[NumberTest]) -> BTreeSet<usize> {
    let bounds = lengths.iter().flat_map(bounds);
    let around = bounds.flat_map(|n| [n - Decimal::ONE, n, n + Decimal::ONE]);
    let mut all: BTreeSet<usize> =
        around.filter_map(|n| usize::try_from(n.trunc()).ok()).filter(|n| *n <= MAX_LENGTH).collect();
    all.insert(0);
    all
}

fn bounds(test: &NumberTest) -> Vec<Decimal> {
    match test {
        NumberTest::Eq(n)
        | NumberTest::Ne(n)
        | NumberTest::Lt(n)
        | NumberTest::Le(n)
        | NumberTest::Gt(n)
        | NumberTest::Ge(n) => vec![*n],
        NumberTest::Between(low, high) => vec![*low, *high],
    }
}

/// Every number that some question names.
fn named_numbers(asked: &Asked<'_>) -> BTreeSet<Decimal> {
    let mut named = BTreeSet::new();
    for test in &asked.scope {
        if let ScopeTest::Port(ports) = test {
            named.extend(ports.iter().map(|p| Decimal::from(*p)));
        }
    }
    for predicate in &asked.predicates {
        match &predicate.test {
            Test::Number(test) => named.extend(bounds(test)),
            Test::OneOf { values: Values::Number(numbers), .. } => named.extend(numbers.iter().copied()),
            Test::Has(_)
            | Test::OneOf { .. }
            | Test::Prefix(_)
            | Test::Suffix(_)
            | Test::Glob(_)
            | Test::Regex(_)
            | Test::Length(_)
            | Test::Cidr(_)
            | Test::Elements(..) => {}
        }
    }
    named
}

/// Whole numbers at and around every bound.
fn numbers(asked: &Asked<'_>, least: u64, most: Option<u64>) -> Vec<Val> {
    let named = named_numbers(asked);
    let around = named.iter().flat_map(|n| [n.trunc(), n.trunc() - Decimal::ONE, n.trunc() + Decimal::ONE]);
    let fits = |n: &Decimal| *n >= Decimal::from(least) && most.is_none_or(|most| *n <= Decimal::from(most));
    let all: BTreeSet<Decimal> = around.chain([Decimal::from(443)]).filter(fits).collect();
    all.into_iter().map(Val::Number).collect()
}

/// Numbers at, between, below and above all bounds.
fn decimals(asked: &Asked<'_>) -> Vec<Val> {
    let named: Vec<Decimal> = named_numbers(asked).into_iter().collect();
    let mut all = named.clone();
    let outside = named.first().and_then(|n| n.checked_sub(Decimal::ONE)).into_iter();
    all.extend(outside.chain(named.last().and_then(|n| n.checked_add(Decimal::ONE))));
    for (low, high) in named.iter().zip(named.iter().skip(1)) {
        let next = low.trunc() + Decimal::ONE;
        let middle = (low.checked_add(*high)).map(|sum| sum / Decimal::TWO);
        all.extend(if next < *high && next > *low { Some(next) } else { middle });
    }
    if all.is_empty() {
        all.push(Decimal::ONE);
    }
    all.into_iter().map(Val::Number).collect()
}

fn addresses(asked: &Asked<'_>) -> Vec<Val> {
    let in_scope = asked.scope.iter().filter_map(|test| match test {
        ScopeTest::Cidr(ranges) => Some(ranges),
        _ => None,
    });
    let in_when = asked.predicates.iter().filter_map(|p| match &p.test {
        Test::Cidr(ranges) => Some(ranges),
        _ => None,
    });
    let mut all: Vec<IpAddr> = [[93, 184, 215, 14], [10, 0, 0, 1]].map(IpAddr::from).to_vec();
    all.extend(["2606:4700::1", "::1"].iter().filter_map(|text| text.parse::<IpAddr>().ok()));
    all.extend(in_scope.chain(in_when).flatten().flat_map(ends));
    all.into_iter().map(Val::Ip).collect()
}

/// The first address of a range, and the first after it: ranges nest, so the ends of all of them meet every case.
fn ends(range: &Cidr) -> Vec<IpAddr> {
    match *range {
        Cidr::V4 { net, mask, .. } => {
            let (first, last) = (net & mask, net | !mask);
            let around = [Some(first), last.checked_add(1), first.checked_sub(1)];
            around.into_iter().flatten().map(|bits| Ipv4Addr::from_bits(bits).into()).collect()
        }
        Cidr::V6 { net, mask, .. } => {
            let (first, last) = (net & mask, net | !mask);
            let around = [Some(first), last.checked_add(1), first.checked_sub(1)];
            around.into_iter().flatten().map(|bits| Ipv6Addr::from_bits(bits).into()).collect()
        }
    }
}

/// What a parser may make of a statement. Only its class is told apart in every way.
fn facts(asked: &Asked<'_>) -> (Vec<Val>, bool) {
    use crate::field::Field;
    let about_class = |p: &&&crate::predicate::Predicate| p.field == Field::Stmt;
    let class = Asked {
        scope: Vec::new(),
        predicates: asked.predicates.iter().filter(about_class).copied().collect(),
    };
    let (classes, complete) = texts(&class, Kind::Word);
    let complete = complete && asked.predicates.iter().all(|p| p.field == Field::Stmt);
    let mut values: Vec<Val> = classes
        .into_iter()
        .map(|class| Val::Facts(Arc::new(SqlFacts { class, ..SqlFacts::default() })))
        .collect();
    for elements in 0..3 {
        let names: Vec<String> = (0..elements).map(|n| format!("t{n}")).collect();
        values.push(Val::Facts(Arc::new(SqlFacts {
            class: "select".to_owned(),
            tables: names.clone(),
            columns: names.clone(),
            functions: names,
        })));
    }
    values.push(Val::Absent);
    (values, complete)
}

fn arguments(asked: &Asked<'_>, dotted: &str) -> (Vec<Val>, bool) {
    let (texts, complete) = texts(asked, Kind::Any);
    let mut values: Vec<Val> = texts.into_iter().map(Val::Text).collect();
    values.extend(decimals(asked));
    values.extend([Val::Bool(true), Val::Bool(false)]);
    let mut lengths = BTreeSet::from([1]);
    for predicate in &asked.predicates {
        if let Test::Length(tests) = &predicate.test {
            lengths.extend(near(tests));
        }
    }
    values.extend(lengths.into_iter().map(Val::List));
    values.extend([Val::Absent, Val::Opaque, Val::Record]);
    // What lies inside an opaque value cannot even be known to be absent; that is set at the outer name.
    let nested = dotted.contains('.');
    (values, complete && !nested)
}
