//! Stores and layers against a plain map, and their bounds.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::file::File;
use super::{Gave, KvError, MAX_PAGE, MAX_VALUE_BYTES, Overlay, Use};

const ROOM: u64 = 1 << 30;

fn key(n: u8) -> String {
    format!("{}{n}", if n.is_multiple_of(2) { "a/" } else { "\u{e4}/" })
}

/// What a store is, in a few lines.
#[derive(Default, Clone)]
struct Model(BTreeMap<String, Vec<u8>>);

impl Model {
    fn run(&mut self, what: Use) -> Result<Gave, KvError> {
        Ok(match what {
            Use::Get(k) => Gave::Value(self.0.get(&k).cloned()),
            Use::Set(k, v) => {
                self.0.insert(k, v);
                Gave::Done
            }
            Use::Delete(k) => Gave::Was(self.0.remove(&k).is_some()),
            Use::Increment(k, by) => {
                let sum = super::incremented(self.0.get(&k).map(Vec::as_slice), by)?;
                self.0.insert(k, sum.to_string().into_bytes());
                Gave::Number(sum)
            }
            Use::List { prefix, after } => {
                let fits = |k: &&String| k.starts_with(&prefix) && after.as_ref().is_none_or(|a| *k > a);
                let keys = self.0.keys().filter(fits).cloned().collect();
                Gave::Page(super::Page { keys, next: None })
            }
            Use::Skip { count } => {
                let skip = usize::try_from(count).unwrap();
                Gave::Page(super::Page { keys: self.0.keys().skip(skip).cloned().collect(), next: None })
            }
        })
    }
}

fn uses() -> impl Strategy<Value = Use> {
    prop_oneof![
        (0u8..12).prop_map(|n| Use::Get(key(n))),
        (0u8..12, prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(n, v)| Use::Set(key(n), v)),
        (0u8..12, 0u64..1000).prop_map(|(n, v)| Use::Set(key(n), v.to_string().into_bytes())),
        (0u8..12).prop_map(|n| Use::Delete(key(n))),
        (0u8..12, any::<u64>()).prop_map(|(n, by)| Use::Increment(key(n), by)),
        (0u8..12, any::<bool>()).prop_map(|(n, some)| Use::List {
            prefix: if some { "a/".into() } else { String::new() },
            after: some.then(|| key(n)),
        }),
        (0u64..14).prop_map(|count| Use::Skip { count }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_store_and_a_layer_are_maps(below in prop::collection::vec(uses(), 0..20), above in prop::collection::vec(uses(), 0..20)) {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::open(dir.path(), "s.db").unwrap();
        let mut model = Model::default();
        for what in below {
            prop_assert_eq!(file.run(what.clone(), ROOM), model.run(what));
        }
        let kept = model.clone();
        let mut layer = Overlay::default();
        for what in above {
            prop_assert_eq!(layer.run(&file, what.clone(), ROOM), model.run(what));
        }
        let all = Use::List { prefix: String::new(), after: None };
        let keys: Vec<String> = kept.0.keys().cloned().collect();
        prop_assert_eq!(file.run(all, ROOM), Ok(Gave::Page(super::Page { keys, next: None })), "the layer changed the store");
    }
}

#[test]
fn a_store_never_holds_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) =
        (File::open(dir.path(), "s.db").unwrap(), File::open(dir.path(), "s.db").unwrap());
    let set = |n: usize, size: usize| Use::Set(format!("k{n}"), vec![0; size]);
    assert_eq!(one.run(set(1, 48), 100), Ok(Gave::Done));
    assert_eq!(two.run(set(2, 48), 100), Ok(Gave::Done));
    assert_eq!(one.run(set(3, 0), 100), Err(KvError::Full), "exactly full");
    assert_eq!(two.run(set(1, 49), 100), Err(KvError::Full));
    assert_eq!(two.run(set(1, 47), 100), Ok(Gave::Done), "replacing frees what was there");
    assert_eq!(one.run(Use::Delete("k1".into()), 100), Ok(Gave::Was(true)));
    assert_eq!(one.run(Use::Delete("k1".into()), 100), Ok(Gave::Was(false)));
    assert_eq!(one.run(set(4, 48), 100), Ok(Gave::Done));
    let mut layer = Overlay::default();
    assert_eq!(layer.run(&one, set(5, 99), 100), Err(KvError::Full), "a layer is bounded, too");
    let large = set(6, MAX_VALUE_BYTES + 1);
    assert_eq!(one.run(large.clone(), ROOM), Err(KvError::Value));
    assert_eq!(layer.run(&one, large, ROOM), Err(KvError::Value));
    for bad in [String::new(), "a\nb".into(), "\u{0}".into(), "k".repeat(513)] {
        for what in [Use::Get(bad.clone()), Use::Set(bad.clone(), vec![]), Use::Delete(bad.clone())] {
            assert_eq!(one.run(what.clone(), ROOM), Err(KvError::Key));
            assert_eq!(layer.run(&one, what, ROOM), Err(KvError::Key));
        }
    }
    assert_eq!(one.run(Use::Increment("n".into(), u64::MAX), ROOM), Ok(Gave::Number(u64::MAX)));
    assert_eq!(one.run(Use::Increment("n".into(), 1), ROOM), Err(KvError::Number));
}

#[test]
fn a_listing_comes_in_pages_and_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kv");
    let mut file = File::open(&folder, "s.db").unwrap();
    let total = MAX_PAGE * 2 + 5;
    for n in 0..total {
        file.run(Use::Set(format!("k{n:06}"), vec![]), ROOM).unwrap();
    }
    let mut layer = Overlay::default();
    for n in 0..300 {
        layer.run(&file, Use::Delete(format!("k{n:06}")), ROOM).unwrap();
    }
    layer.run(&file, Use::Set("k000100x".into(), vec![]), ROOM).unwrap();
    let mut read = |layered: bool| {
        let (mut after, mut keys) = (None, Vec::new());
        loop {
            let what = Use::List { prefix: "k".into(), after };
            let gave = if layered { layer.run(&file, what, ROOM) } else { file.run(what, ROOM) };
            let Ok(Gave::Page(page)) = gave else { panic!("{gave:?}") };
            assert!(page.keys.len() <= MAX_PAGE);
            keys.extend(page.keys);
            match page.next {
                Some(next) => after = Some(next),
                None => return keys,
            }
        }
    };
    assert_eq!(read(false).len(), total);
    let layered = read(true);
    assert_eq!(layered.len(), total - 300 + 1);
    assert!(layered.is_sorted());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("s.db"))), (0o700, 0o600));
}
