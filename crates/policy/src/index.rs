//! Which rules can match a call, without looking at the others.
//!
//! For each action every rule is filed under one kind of key that its `match` fixes: an exact tool and agent, a tool, an
//! agent, a host or its domain, a path or its leading folders, a database, a variable. Of the kinds that a rule offers,
//! the one is taken whose keys are shared with the fewest other rules. A rule that fixes nothing is tried for every call
//! of its actions. A call looks up the keys that it has, and every rule found is then verified in full, so that neither a
//! coarse key nor two keys with one hash can change a decision: they only cost time.
//!
//! The hash is not keyed: the table holds keys of the policy only, and a guest cannot add to it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use govrun_verdict::{Action, Call, Operation};

use crate::glob::{Anchor, Glob};
use crate::rule::Rule;
use crate::scope::{ScopeTest, slot};

/// Most keys that one rule is filed under for one action; with more it is tried for every call.
const MAX_KEYS_PER_RULE: usize = 4096;

/// Positions of rules, by action and key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    actions: [ActionIndex; Action::ALL.len()],
}

#[derive(Debug, Clone, Default)]
struct ActionIndex {
    /// Kinds of keys that occur: a bit for each [`Kind`].
    kinds: u16,
    /// Where in `positions` the rules of a key are.
    keys: HashMap<u64, (u32, u32), BuildHasherDefault<AlreadyHashed>>,
    positions: Vec<u32>,
    /// Rules that are tried for every call.
    rest: Vec<u32>,
}

/// What a key is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    ToolAndAgent,
    Tool,
    /// A tool's name up to a boundary, such as `payments.`.
    ToolStart,
    Agent,
    AgentStart,
    Host,
    Domain,
    Path,
    Folder,
    Db,
    Name,
}

impl Kind {
    const fn bit(self) -> u16 {
        1 << self.number()
    }

    const fn number(self) -> u8 {
        match self {
            Self::ToolAndAgent => 0,
            Self::Tool => 1,
            Self::ToolStart => 2,
            Self::Agent => 3,
            Self::AgentStart => 4,
            Self::Host => 5,
            Self::Domain => 6,
            Self::Path => 7,
            Self::Folder => 8,
            Self::Db => 9,
            Self::Name => 10,
        }
    }
}

/// A running hash of text (FNV-1a), so that all prefixes of a name are hashed in one walk.
#[derive(Debug, Clone, Copy)]
struct Running(u64);

impl Running {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64_of(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    fn text(self, text: &str) -> Self {
        text.bytes().fold(self, Self::byte)
    }

    /// The key of a kind: FNV leaves its low bits weak, so they are mixed.
    const fn key(self, kind: Kind) -> u64 {
        let mixed = (self.0 ^ u64_of(kind.number()) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }
}

#[expect(clippy::as_conversions, reason = "widening, and `From` is not const")]
const fn u64_of(byte: u8) -> u64 {
    byte as u64
}

fn key(kind: Kind, text: &str) -> u64 {
    Running::new().text(text).key(kind)
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(Running(self.0), |h, b| h.byte(*b)).0;
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Where the prefix of a name may end: a key for every prefix would be a lookup for every byte.
const fn is_boundary(byte: u8) -> bool {
    matches!(byte, b'.' | b'-' | b'_' | b':' | b'@')
}

/// One way to file a rule.
type Keys = Vec<(Kind, u64)>;

impl Index {
    /// File the rules under their positions.
    pub(crate) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for action in Action::ALL {
            if let Some(of_action) = index.actions.get_mut(slot(action)) {
                *of_action = ActionIndex::new(action, rules);
            }
        }
        index
    }

    /// Call `found` with the position of every rule that could match; some more than once.
    pub(crate) fn candidates(&self, call: &Call, mut found: impl FnMut(u32)) {
        let Some(index) = self.actions.get(slot(call.action())) else { return };
        index.rest.iter().copied().for_each(&mut found);
        if index.kinds != 0 {
            index.identity(call, &mut found);
            index.resource(&call.operation, &mut found);
        }
    }
}

impl ActionIndex {
    fn new(action: Action, rules: &[Rule]) -> Self {
        let of_action = rules.iter().enumerate().filter(|(_, r)| r.scope.actions.contains(&action));
        let ways: Vec<(u32, Vec<Keys>)> = of_action
            .filter_map(|(at, rule)| Some((u32::try_from(at).ok()?, ways(&rule.scope.tests))))
            .collect();
        let mut shared: HashMap<u64, u32> = HashMap::new();
        for (_, key) in ways.iter().flat_map(|(_, ways)| ways.iter().flatten()) {
            *shared.entry(*key).or_default() += 1;
        }
        let crowd = |keys: &Keys| keys.iter().filter_map(|(_, key)| shared.get(key)).max().copied();
        let mut index = Self::default();
        let mut filed: HashMap<u64, Vec<u32>> = HashMap::new();
        for (position, ways) in &ways {
            match ways.iter().min_by_key(|keys| crowd(keys)) {
                Some(keys) => {
                    for (kind, key) in keys {
                        index.kinds |= kind.bit();
                        filed.entry(*key).or_default().push(*position);
                    }
                }
                None => index.rest.push(*position),
            }
        }
        for (key, positions) in filed {
            let start = u32::try_from(index.positions.len()).unwrap_or(u32::MAX);
            index.positions.extend(positions);
            let end = u32::try_from(index.positions.len()).unwrap_or(u32::MAX);
            index.keys.insert(key, (start, end));
        }
        index
    }

    fn has(&self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }

    fn look_up(&self, key: u64, found: &mut impl FnMut(u32)) {
        let Some((start, end)) = self.keys.get(&key) else { return };
        let range = usize::try_from(*start).ok().zip(usize::try_from(*end).ok());
        let positions = range.and_then(|(start, end)| self.positions.get(start..end));
        positions.unwrap_or_default().iter().copied().for_each(found);
    }

    fn identity(&self, call: &Call, found: &mut impl FnMut(u32)) {
        let (tool, agent) = (&*call.tool.name, &*call.agent.name);
        let whole = self.name(tool, Kind::Tool, Kind::ToolStart, found);
        if self.has(Kind::ToolAndAgent) {
            let whole = whole.unwrap_or_else(|| Running::new().text(tool));
            self.look_up(whole.byte(0).text(agent).key(Kind::ToolAndAgent), found);
        }
        self.name(agent, Kind::Agent, Kind::AgentStart, found);
    }

    /// Look up a name and its prefixes; returns the hash of the whole, if it was made.
    fn name(&self, text: &str, exact: Kind, start: Kind, found: &mut impl FnMut(u32)) -> Option<Running> {
        if !self.has(exact) && !self.has(start) {
            return None;
        }
        let mut hash = Running::new();
        for byte in text.bytes() {
            hash = hash.byte(byte);
            if is_boundary(byte) && self.has(start) {
                self.look_up(hash.key(start), found);
            }
        }
        if self.has(exact) {
            self.look_up(hash.key(exact), found);
        }
        Some(hash)
    }

    fn resource(&self, operation: &Operation, found: &mut impl FnMut(u32)) {
        match operation {
            Operation::Fs { path, .. } => self.path(path, found),
            Operation::HttpRequest(target) => {
                self.host(&target.host, found);
                self.path(&target.path, found);
            }
            Operation::NetConnect { host, .. }
            | Operation::NetDns { host }
            | Operation::NetSocket { host: Some(host), .. } => self.host(host, found),
            Operation::Db { db, .. } if self.has(Kind::Db) => self.look_up(key(Kind::Db, db), found),
            Operation::EnvRead { name } | Operation::Secret { name } if self.has(Kind::Name) => {
                self.look_up(key(Kind::Name, name), found);
            }
            Operation::Db { .. }
            | Operation::EnvRead { .. }
            | Operation::Secret { .. }
            | Operation::NetSocket { host: None, .. }
            | Operation::Kv { .. }
            | Operation::Model { .. }
            | Operation::ToolCall { .. }
            | Operation::ArgsRead
            | Operation::Stdio(_)
            | Operation::Clock
            | Operation::Random => {}
        }
    }

    fn path(&self, path: &str, found: &mut impl FnMut(u32)) {
        if !self.has(Kind::Path) && !self.has(Kind::Folder) {
            return;
        }
        let mut hash = Running::new();
        for (at, byte) in path.bytes().enumerate() {
            if byte == b'/' && at > 0 && self.has(Kind::Folder) {
                self.look_up(hash.key(Kind::Folder), found);
            }
            hash = hash.byte(byte);
        }
        self.look_up(hash.key(Kind::Folder), found);
        self.look_up(hash.key(Kind::Path), found);
    }

    /// Look up a host and every domain it is beneath. Hashed from the end, so that one walk meets all of them.
    fn host(&self, host: &str, found: &mut impl FnMut(u32)) {
        if !self.has(Kind::Host) && !self.has(Kind::Domain) {
            return;
        }
        let mut hash = Running::new();
        for byte in host.bytes().rev() {
            if byte == b'.' && self.has(Kind::Domain) {
                self.look_up(hash.key(Kind::Domain), found);
            }
            hash = hash.byte(byte.to_ascii_lowercase());
        }
        self.look_up(hash.key(Kind::Host), found);
    }
}

/// Every way in which a rule can be filed.
fn ways(tests: &[ScopeTest]) -> Vec<Keys> {
    let mut ways: Vec<Keys> = tests.iter().filter_map(keys_of).collect();
    ways.extend(pairs(tests));
    ways.retain(|keys| keys.len() <= MAX_KEYS_PER_RULE);
    ways
}

fn keys_of(test: &ScopeTest) -> Option<Keys> {
    match test {
        ScopeTest::Tool(globs) => globs.iter().map(|g| name_key(g, Kind::Tool, Kind::ToolStart)).collect(),
        ScopeTest::Agent(globs) => globs.iter().map(|g| name_key(g, Kind::Agent, Kind::AgentStart)).collect(),
        ScopeTest::Host(globs) => globs.iter().map(host_key).collect(),
        ScopeTest::Path(globs) => globs.iter().map(path_key).collect(),
        ScopeTest::Db(labels) => Some(labels.iter().map(|l| (Kind::Db, key(Kind::Db, l))).collect()),
        ScopeTest::Name(globs) => {
            globs.iter().map(|g| exact(g).map(|t| (Kind::Name, key(Kind::Name, t)))).collect()
        }
        ScopeTest::Tenant(_)
        | ScopeTest::Caller(_)
        | ScopeTest::Digest(_)
        | ScopeTest::Port(_)
        | ScopeTest::Scheme(_)
        | ScopeTest::Method(_)
        | ScopeTest::Cidr(_)
        | ScopeTest::Stream(_)
        | ScopeTest::Transport(_)
        | ScopeTest::Store(_)
        | ScopeTest::Key(_)
        | ScopeTest::Model(_) => None,
    }
}

fn exact(glob: &Glob) -> Option<&str> {
    match glob.anchor() {
        Anchor::Exact(text) => Some(text),
        Anchor::Start(_) | Anchor::End(_) | Anchor::Nothing => None,
    }
}

fn name_key(glob: &Glob, whole: Kind, start: Kind) -> Option<(Kind, u64)> {
    match glob.anchor() {
        Anchor::Exact(text) => Some((whole, key(whole, text))),
        Anchor::Start(text) => {
            let end = text.bytes().rposition(is_boundary)?;
            text.get(..=end).map(|prefix| (start, key(start, prefix)))
        }
        Anchor::End(_) | Anchor::Nothing => None,
    }
}

fn path_key(glob: &Glob) -> Option<(Kind, u64)> {
    match glob.anchor() {
        Anchor::Exact(text) => Some((Kind::Path, key(Kind::Path, text))),
        Anchor::Start(lead) => Some((Kind::Folder, key(Kind::Folder, lead))),
        Anchor::End(_) | Anchor::Nothing => None,
    }
}

fn host_key(glob: &Glob) -> Option<(Kind, u64)> {
    let from_the_end =
        |kind: Kind, text: &str| (kind, text.bytes().rev().fold(Running::new(), Running::byte).key(kind));
    match glob.anchor() {
        Anchor::Exact(host) => Some(from_the_end(Kind::Host, host)),
        Anchor::End(domain) => Some(from_the_end(Kind::Domain, domain)),
        Anchor::Start(_) | Anchor::Nothing => None,
    }
}

/// Exact tools and exact agents together.
fn pairs(tests: &[ScopeTest]) -> Option<Keys> {
    let tools = tests.iter().find_map(|t| if let ScopeTest::Tool(globs) = t { Some(globs) } else { None })?;
    let agents =
        tests.iter().find_map(|t| if let ScopeTest::Agent(globs) = t { Some(globs) } else { None })?;
    if tools.len().saturating_mul(agents.len()) > MAX_KEYS_PER_RULE {
        return None;
    }
    let mut keys = Keys::new();
    for tool in tools {
        let hash = Running::new().text(exact(tool)?).byte(0);
        for agent in agents {
            keys.push((Kind::ToolAndAgent, hash.text(exact(agent)?).key(Kind::ToolAndAgent)));
        }
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use govrun_verdict::{Agent, Digest, FsOp, ToolRef, Value};
    use std::sync::Arc;

    use crate::{Policy, SourceFile, Sources};

    use super::*;

    fn policy(rules: impl Iterator<Item = String>) -> Policy {
        let rules = rules
            .enumerate()
            .map(|(at, scope)| format!("[[rule]]\nid='r{at}'\nmatch={{{scope}}}\nverdict='allow'\n"));
        let text = format!("schema=1\n{}", rules.collect::<String>());
        Policy::compile(&Sources { files: vec![SourceFile { path: "govrun.toml".into(), text }] }).unwrap()
    }

    fn call(agent: &str, tool: &str, operation: Operation) -> Call {
        Call {
            agent: Arc::new(Agent { name: agent.into(), tenant: None }),
            env: "e".into(),
            session: "s".into(),
            tool: Arc::new(ToolRef { name: tool.into(), component: Digest([0; 32]) }),
            caller: None,
            parent: None,
            operation,
        }
    }

    /// How many rules are looked at, and how many of them match.
    fn looked_at(policy: &Policy, call: &Call) -> (usize, usize) {
        let mut positions = Vec::new();
        policy.index.candidates(call, |p| positions.push(usize::try_from(p).unwrap()));
        (positions.len(), positions.iter().filter(|p| policy.rules[**p].scope.holds(call)).count())
    }

    fn tool_call() -> Operation {
        Operation::ToolCall { args: Value::Null }
    }

    #[test]
    fn a_cell_of_agents_and_tools_is_found_by_both() {
        let p = policy((0..900).map(|n| format!("action='*',agent='a{}',tool='t{}.run'", n / 30, n % 30)));
        for (agent, tool) in [("a0", "t0.run"), ("a29", "t29.run"), ("a7", "t11.run")] {
            assert_eq!(looked_at(&p, &call(agent, tool, tool_call())), (1, 1), "{agent} {tool}");
        }
        assert_eq!(looked_at(&p, &call("a30", "t0.run", tool_call())).0, 0);
    }

    #[test]
    fn every_kind_of_key_leads_to_its_rules_and_few_others() {
        let path = |p: &str| Operation::Fs { op: FsOp::Read, path: p.into() };
        let connect = |h: &str| Operation::NetConnect { host: h.into(), ip: [1, 1, 1, 1].into(), port: 1 };
        let cases: [(&str, Operation); 8] = [
            ("action='tool.call',tool='t#.*'", tool_call()),
            ("action='tool.call',tool='t#.run'", tool_call()),
            ("action='tool.call',agent='a-#'", tool_call()),
            ("action='fs.read',path='/d/#/**'", path("/d/5/x/y")),
            ("action='fs.read',path='/d/#/x/y'", path("/d/5/x/y")),
            ("action='net.connect',host='*.h#.com'", connect("x.y.h5.com")),
            ("action='net.connect',host='h#.com'", connect("H5.com")),
            ("action='env.read',name='V#'", Operation::EnvRead { name: "V5".into() }),
        ];
        for (scope, operation) in cases {
            let p = policy((0..500).map(|n| scope.replace('#', &n.to_string())));
            assert_eq!(looked_at(&p, &call("a-5", "t5.run", operation)), (1, 1), "{scope}");
        }
    }
}
