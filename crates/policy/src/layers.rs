//! Layers: who wrote which packs, and whose permission is needed.

use std::sync::Arc;

use crate::names;
use crate::sources::is_plain_path;
use crate::toml_item::{Item, Table};

/// Most layers of a policy.
pub const MAX_LAYERS: usize = 16;

/// The layers of a policy, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers {
    layers: Vec<Layer>,
    /// A bit for each layer that is a ceiling.
    pub(crate) ceilings: u32,
}

#[derive(Debug, Clone)]
struct Layer {
    name: Arc<str>,
    packs: Vec<String>,
}

impl Layers {
    /// Bit and name of the layer of the file at this path; no bit when it is in none.
    pub(crate) fn of(&self, path: &str) -> (u32, Option<&Arc<str>>) {
        let found =
            self.layers.iter().zip(0u32..).find(|(layer, _)| layer.packs.iter().any(|p| inside(p, path)));
        found.map_or((0, None), |(layer, at)| (1 << at, Some(&layer.name)))
    }
}

/// Whether the file is in the folder.
pub(crate) fn inside(pack: &str, path: &str) -> bool {
    path.strip_prefix(pack).is_some_and(|rest| rest.starts_with('/'))
}

/// The packs of the manifest, those of its layers included, with the place of each; and the layers.
pub(crate) fn read<'t>(root: &Table<'t>) -> (Vec<(Item<'t>, &'t str)>, Layers) {
    let mut packs = root.get("packs").map(listed).unwrap_or_default();
    let mut layers = Layers::default();
    for (entry, table) in root.named("layer", "a layer") {
        table.only(&["packs", "ceiling"]);
        if let Err(why) = names::check(entry.key, "a layer's name") {
            entry.fail(why, None);
        }
        if layers.layers.len() >= MAX_LAYERS {
            entry.fail(format!("a policy has at most {MAX_LAYERS} layers"), None);
            break;
        }
        let ceiling = table.get("ceiling").and_then(|item| item.boolean()).unwrap_or(false);
        let of_layer = table.need("packs").map(listed).unwrap_or_default();
        if ceiling {
            layers.ceilings |= 1 << layers.layers.len();
        }
        let names = of_layer.iter().map(|(_, pack)| (*pack).to_owned()).collect();
        layers.layers.push(Layer { name: entry.key.into(), packs: names });
        packs.extend(of_layer);
    }
    overlapping(&packs);
    (packs, layers)
}

fn listed<'t>(item: Item<'t>) -> Vec<(Item<'t>, &'t str)> {
    if !item.value().is_array() {
        item.fail("`packs` is a list of folders, such as `[\"finance\"]`");
        return Vec::new();
    }
    let packs = item.texts().unwrap_or_default();
    for (item, _) in packs.iter().filter(|(_, text)| !is_plain_path(text)) {
        item.fail("a pack is a folder beside the manifest: a relative path without `.` and `..`");
    }
    packs
}

/// A file in two packs could be in two layers.
fn overlapping(packs: &[(Item<'_>, &str)]) {
    for (at, (item, pack)) in packs.iter().enumerate() {
        let before = packs.iter().take(at);
        if let Some((_, other)) =
            before.into_iter().find(|(_, o)| o == pack || inside(o, pack) || inside(pack, o))
        {
            item.fail(format!("the pack `{pack}` and the pack `{other}` hold the same files"));
        }
    }
}
