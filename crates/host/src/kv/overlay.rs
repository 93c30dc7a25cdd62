//! What a sandboxed call sees of a store: its own changes over what is there, thrown away with the call.

use std::collections::BTreeMap;

use super::file::File;
use super::{Gave, KvError, MAX_PAGE, MAX_VALUE_BYTES, Page, Use, check_key, incremented};

/// See the module. `None` is a key that was deleted.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    changed: BTreeMap<String, Option<Vec<u8>>>,
    bytes: usize,
}

impl Overlay {
    pub(super) fn run(&mut self, file: &File, what: Use, max_bytes: u64) -> Result<Gave, KvError> {
        match what {
            Use::Get(key) => self.get(file, &key).map(Gave::Value),
            Use::Set(key, value) => {
                if value.len() > MAX_VALUE_BYTES {
                    return Err(KvError::Value);
                }
                self.put(&key, Some(value), max_bytes)?;
                Ok(Gave::Done)
            }
            Use::Delete(key) => {
                let was = self.get(file, &key)?.is_some();
                self.put(&key, None, max_bytes)?;
                Ok(Gave::Was(was))
            }
            Use::Increment(key, delta) => {
                let sum = incremented(self.get(file, &key)?.as_deref(), delta)?;
                self.put(&key, Some(sum.to_string().into_bytes()), max_bytes)?;
                Ok(Gave::Number(sum))
            }
            Use::List { prefix, after } => self.page(file, &prefix, after.as_deref()).map(Gave::Page),
            Use::Skip { count } => self.skip(file, count).map(Gave::Page),
        }
    }

    fn get(&self, file: &File, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        match self.changed.get(key) {
            Some(value) => Ok(value.clone()),
            None => file.get(key),
        }
    }

    /// The layer alone has the bound of the store: what lies beneath is not copied.
    fn put(&mut self, key: &str, value: Option<Vec<u8>>, max_bytes: u64) -> Result<(), KvError> {
        check_key(key)?;
        let weight = |value: Option<&Vec<u8>>| key.len().saturating_add(value.map_or(0, Vec::len));
        let freed = self.changed.get(key).map_or(0, |old| weight(old.as_ref()));
        let bytes = self.bytes.saturating_sub(freed).saturating_add(weight(value.as_ref()));
        if u64::try_from(bytes).unwrap_or(u64::MAX) > max_bytes {
            return Err(KvError::Full);
        }
        self.bytes = bytes;
        self.changed.insert(key.to_owned(), value);
        Ok(())
    }

    /// A page of the file with this layer's changes in it.
    fn page(&self, file: &File, prefix: &str, after: Option<&str>) -> Result<Page, KvError> {
        // Each key that was deleted here takes at most one from the file's page.
        let below = file.page(prefix, after, MAX_PAGE.saturating_add(self.changed.len()))?;
        let fits = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let mut keys: BTreeMap<String, ()> = below.keys.into_iter().map(|key| (key, ())).collect();
        for (key, value) in self.changed.iter().filter(|(key, _)| fits(key)) {
            match value {
                Some(_) => keys.insert(key.clone(), ()),
                None => keys.remove(key),
            };
        }
        let more = keys.len() > MAX_PAGE || below.next.is_some();
        let keys: Vec<String> = keys.into_keys().take(MAX_PAGE).collect();
        let next = if more { keys.last().cloned() } else { None };
        Ok(Page { keys, next })
    }

    fn skip(&self, file: &File, count: u64) -> Result<Page, KvError> {
        let (mut left, mut after) = (count, None);
        loop {
            let page = self.page(file, "", after.as_deref())?;
            let here = u64::try_from(page.keys.len()).unwrap_or(u64::MAX);
            if left < here || page.next.is_none() {
                let skip = usize::try_from(left).unwrap_or(usize::MAX);
                return Ok(Page { keys: page.keys.into_iter().skip(skip).collect(), next: page.next });
            }
            left = left.saturating_sub(here);
            after = page.next;
        }
    }
}
