//! Text patterns as automata, run side by side: which combinations of them one text can satisfy, with such a text for
//! each combination.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::glob::Glob;

/// Most states that are visited before the search gives up.
const MAX_STATES: usize = 4_000;

/// What one step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Is(char),
    Any,
    /// Any character of a path's segment.
    NoSlash,
}

/// One pattern. It accepts a text when a walk over all of it ends in `accept`.
#[derive(Debug, Clone, Default)]
pub(super) struct Pattern {
    steps: Vec<Vec<(Class, usize)>>,
    /// Steps that read nothing.
    skips: Vec<Vec<usize>>,
    accept: BTreeSet<usize>,
}

impl Pattern {
    fn start() -> (Self, usize) {
        let mut pattern = Self::default();
        let first = pattern.state();
        (pattern, first)
    }

    fn state(&mut self) -> usize {
        self.steps.push(Vec::new());
        self.skips.push(Vec::new());
        self.steps.len() - 1
    }

    fn step(&mut self, from: usize, class: Class, to: usize) {
        self.steps.get_mut(from).into_iter().for_each(|steps| steps.push((class, to)));
    }

    fn skip(&mut self, from: usize, to: usize) {
        self.skips.get_mut(from).into_iter().for_each(|skips| skips.push(to));
    }

    fn one(&mut self, from: usize, class: Class) -> usize {
        let to = self.state();
        self.step(from, class, to);
        to
    }

    fn run(&mut self, from: usize, class: Class) -> usize {
        let looped = self.state();
        self.skip(from, looped);
        self.step(looped, class, looped);
        looped
    }

    fn text(&mut self, from: usize, text: &str) -> usize {
        text.chars().fold(from, |at, c| self.one(at, Class::Is(c)))
    }

    fn wild(&mut self, from: usize, text: &str, any: Class) -> usize {
        text.chars().fold(from, |at, c| match c {
            '*' => self.run(at, any),
            '?' => self.one(at, any),
            c => self.one(at, Class::Is(c)),
        })
    }

    fn accepting(mut self, at: usize) -> Self {
        self.accept.insert(at);
        self
    }

    /// Exactly this text.
    pub(super) fn literal(text: &str) -> Self {
        let (mut pattern, first) = Self::start();
        let end = pattern.text(first, text);
        pattern.accepting(end)
    }

    /// Everything that begins with this.
    pub(super) fn prefix(text: &str) -> Self {
        let (mut pattern, first) = Self::start();
        let lead = pattern.text(first, text);
        let end = pattern.run(lead, Class::Any);
        pattern.accepting(end)
    }

    /// Everything that ends with this.
    pub(super) fn suffix(text: &str) -> Self {
        let (mut pattern, first) = Self::start();
        let lead = pattern.run(first, Class::Any);
        let end = pattern.text(lead, text);
        pattern.accepting(end)
    }

    pub(super) fn glob(glob: &Glob) -> Self {
        let (mut pattern, first) = Self::start();
        let end = match glob {
            Glob::Literal(text) | Glob::Host(text) => pattern.text(first, text),
            Glob::Prefix(text) => return Self::prefix(text),
            Glob::Name(text) => pattern.wild(first, text, Class::Any),
            Glob::Beneath(folder) => {
                let lead = pattern.text(first, folder);
                if !folder.is_empty() {
                    pattern.accept.insert(lead);
                }
                let slash = pattern.one(lead, Class::Is('/'));
                pattern.run(slash, Class::Any)
            }
            Glob::Path(path) => path.segments.iter().fold(first, |at, segment| {
                if &**segment == "**" {
                    return pattern.segments(at);
                }
                let slash = pattern.one(at, Class::Is('/'));
                pattern.wild(slash, segment, Class::NoSlash)
            }),
            Glob::AnyHost => {
                let one = pattern.one(first, Class::Any);
                pattern.run(one, Class::Any)
            }
            Glob::HostBeneath(dotted) => {
                let one = pattern.one(first, Class::Any);
                let labels = pattern.run(one, Class::Any);
                pattern.text(labels, dotted)
            }
        };
        pattern.accepting(end)
    }

    /// Zero or more whole segments.
    fn segments(&mut self, from: usize) -> usize {
        let hub = self.state();
        self.skip(from, hub);
        let slash = self.one(hub, Class::Is('/'));
        let name = self.one(slash, Class::NoSlash);
        self.step(name, Class::NoSlash, name);
        self.skip(name, hub);
        hub
    }

    /// Both of them: what either accepts.
    pub(super) fn either(patterns: &[Self]) -> Self {
        let (mut all, first) = Self::start();
        for pattern in patterns {
            let base = all.steps.len();
            for steps in &pattern.steps {
                all.steps.push(steps.iter().map(|(class, to)| (*class, to + base)).collect());
            }
            for skips in &pattern.skips {
                all.skips.push(skips.iter().map(|to| to + base).collect());
            }
            all.accept.extend(pattern.accept.iter().map(|at| at + base));
            all.skip(first, base);
        }
        all
    }

    fn close(&self, mut states: BTreeSet<usize>) -> BTreeSet<usize> {
        let mut open: Vec<usize> = states.iter().copied().collect();
        while let Some(at) = open.pop() {
            for to in self.skips.get(at).into_iter().flatten() {
                if states.insert(*to) {
                    open.push(*to);
                }
            }
        }
        states
    }

    fn read(&self, states: &BTreeSet<usize>, c: char) -> BTreeSet<usize> {
        let reads = |class: &Class| match class {
            Class::Is(is) => *is == c,
            Class::Any => true,
            Class::NoSlash => c != '/',
        };
        let steps = states.iter().filter_map(|at| self.steps.get(*at)).flatten();
        self.close(steps.filter(|(class, _)| reads(class)).map(|(_, to)| *to).collect())
    }

    fn accepts(&self, states: &BTreeSet<usize>) -> bool {
        !self.accept.is_disjoint(states)
    }

    fn characters(&self) -> impl Iterator<Item = char> + '_ {
        self.steps.iter().flatten().filter_map(|(class, _)| match class {
            Class::Is(c) => Some(*c),
            Class::Any | Class::NoSlash => None,
        })
    }
}

/// Texts of which each satisfies another combination of the patterns, and whether they are all combinations there are.
pub(super) struct Combinations {
    pub(super) texts: Vec<String>,
    pub(super) complete: bool,
}

/// A text for every combination of patterns that a text of this kind can satisfy. `grows` says whether a character may
/// follow a text; `whole` whether the text may end there; `shape` is all that these two look at.
pub(super) fn combinations(
    patterns: &[Pattern],
    grows: impl Fn(&str, char) -> bool,
    whole: impl Fn(&str) -> bool,
    shape: impl Fn(&str) -> u8,
) -> Combinations {
    let alphabet = alphabet(patterns);
    let mut found: BTreeMap<Vec<bool>, String> = BTreeMap::new();
    let first: Vec<BTreeSet<usize>> = patterns.iter().map(|p| p.close(BTreeSet::from([0]))).collect();
    let mut seen = BTreeSet::from([(first.clone(), shape(""))]);
    let mut open = VecDeque::from([(first, String::new())]);
    let mut complete = true;
    while let Some((states, text)) = open.pop_front() {
        if whole(&text) {
            let accepted = patterns.iter().zip(&states).map(|(p, s)| p.accepts(s)).collect();
            found.entry(accepted).or_insert_with(|| text.clone());
        }
        if seen.len() > MAX_STATES {
            complete = false;
            continue;
        }
        for c in alphabet.iter().copied().filter(|c| grows(&text, *c)) {
            let next: Vec<BTreeSet<usize>> =
                patterns.iter().zip(&states).map(|(p, s)| p.read(s, c)).collect();
            let longer = format!("{text}{c}");
            if seen.insert((next.clone(), shape(&longer))) {
                open.push_back((next, longer));
            }
        }
    }
    Combinations { texts: found.into_values().collect(), complete }
}

/// Every character that some pattern names, the separators, and one that none names.
fn alphabet(patterns: &[Pattern]) -> Vec<char> {
    let mut named: BTreeSet<char> = patterns.iter().flat_map(Pattern::characters).collect();
    named.extend(['/', '.']);
    let fresh = ('a'..='z').chain('0'..='9').find(|c| !named.contains(c));
    fresh.into_iter().chain(named.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob::GlobKind;
    use proptest::prelude::*;

    fn accepts(pattern: &Pattern, text: &str) -> bool {
        let first = pattern.close(BTreeSet::from([0]));
        pattern.accepts(&text.chars().fold(first, |states, c| pattern.read(&states, c)))
    }

    proptest! {
        #[test]
        fn an_automaton_accepts_what_the_glob_matches(
            name in "[ab*?]{1,6}", path in "(/([ab]|\\*|\\*\\*|a\\*|\\?)){1,4}", host in "(\\*\\.)?[ab]\\.[ab]|\\*|a",
            text in "[ab]{0,6}", route in "(/[ab]{1,2}){1,4}|/", label in "[ab](\\.[ab]){0,3}",
        ) {
            for (pattern, kind, text) in [(name, GlobKind::Name, text), (path, GlobKind::Path, route), (host, GlobKind::Host, label)] {
                let Ok(glob) = Glob::new(&pattern, kind) else { continue };
                // The root has no segments, so only the folder form of a glob is about it.
                if text == "/" && !matches!(glob, Glob::Beneath(_) | Glob::Literal(_)) { continue }
                prop_assert_eq!(accepts(&Pattern::glob(&glob), &text), glob.matches(&text), "{} {}", pattern, text);
            }
        }
    }

    #[test]
    fn every_combination_that_exists_is_found_and_no_other() {
        let globs = ["a*", "*b", "ab"].map(|g| Pattern::glob(&Glob::new(g, GlobKind::Name).unwrap()));
        let all =
            combinations(&globs, |_, _| true, |text| !text.is_empty(), |text| u8::from(text.is_empty()));
        assert!(all.complete);
        let mut vectors: Vec<Vec<bool>> =
            all.texts.iter().map(|t| globs.iter().map(|g| accepts(g, t)).collect()).collect();
        vectors.sort();
        // `ab` implies both others, so that five of eight are left.
        assert_eq!(
            vectors,
            [
                [false, false, false],
                [false, true, false],
                [true, false, false],
                [true, true, false],
                [true, true, true]
            ]
        );
    }
}
