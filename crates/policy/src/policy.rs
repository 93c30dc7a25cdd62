//! A compiled policy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use govrun_verdict::{Agent, Call, Digest, Disclosure, ReasonCode, RuleId, Timestamp};
use toml::de::DeTable;

use crate::condition::View;
use crate::decide::how_it_matches;
use crate::error::{LoadError, LoadErrors, Origin};
use crate::index::Index;
use crate::layers::{self, Layers};
use crate::lock::{self, LOCK};
use crate::manifest::{self, EnvDefault};
use crate::past::{self, Questions};
use crate::promotion::{self, PROMOTIONS, Promotions};
use crate::registry::{NotifyTarget, Registry, ToolEntry};
use crate::rule::{self, Rule, RuleInfo};
use crate::secrets;
use crate::sources::{
    MANIFEST, MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, Sources, has_toml_extension, is_plain_path,
};
use crate::toml_item::{File, Table};
use crate::tool_labels::{AllLabels, ToolLabels};

/// Most rules of a policy.
pub const MAX_RULES: usize = 100_000;

/// A policy that was read without a single mistake: immutable, shared, and all that [`Policy::decide`] looks at.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) epoch: Digest,
    env: Arc<str>,
    signatures: u64,
    bundle: Vec<u8>,
    agents: BTreeMap<Arc<str>, Arc<Agent>>,
    tools: BTreeMap<Arc<str>, ToolEntry>,
    digests: BTreeMap<Digest, Arc<str>>,
    notify: BTreeMap<Arc<str>, NotifyTarget>,
    /// By ascending id.
    pub(crate) rules: Vec<Rule>,
    /// At the same positions.
    infos: Vec<RuleInfo>,
    pub(crate) index: Index,
    pub(crate) default: EnvDefault,
    /// A bit for each layer that must permit.
    pub(crate) ceilings: u32,
    pub(crate) questions: Questions,
    idle_ms: u64,
    tool_labels: AllLabels,
    pub(crate) disclosure: Arc<Disclosure>,
    pub(crate) words: Words,
}

/// Names that decisions share instead of building them anew.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    pub(crate) public_address: RuleId,
    pub(crate) address_not_granted: RuleId,
    pub(crate) no_egress: RuleId,
    pub(crate) ceiling: RuleId,
    pub(crate) allowed: ReasonCode,
}

impl Policy {
    /// Read and compile the policy in a folder.
    ///
    /// # Errors
    /// With everything that is wrong in all of its files.
    pub fn load(dir: &Path) -> Result<Self, LoadErrors> {
        let (sources, mut errors) = Sources::read_what_is_there(dir);
        let compiled = Self::compile(&sources);
        if errors.is_empty() {
            return compiled;
        }
        if let Err(more) = compiled {
            errors.extend(more.into_vec());
        }
        LoadErrors::check(errors)?;
        Self::compile(&sources)
    }

    /// Compile a policy from its text.
    ///
    /// # Errors
    /// With everything that is wrong in all of its files.
    pub fn compile(sources: &Sources) -> Result<Self, LoadErrors> {
        LoadErrors::check(out_of_bounds(sources))?;
        let Some(manifest) = sources.files.iter().find(|f| f.path == MANIFEST) else {
            let error = LoadError::of_file(MANIFEST, "there is no manifest, so there is no policy");
            return Err(error.with_help("a policy folder holds `govrun.toml` with `schema = 1`").into());
        };
        let toml = sources.files.iter().filter(|f| f.path != MANIFEST && has_toml_extension(&f.path));
        let files: Vec<File<'_>> =
            std::iter::once(manifest).chain(toml.clone()).map(|f| File::new(&f.path, &f.text)).collect();
        let texts = std::iter::once(manifest).chain(toml).map(|f| &*f.text);
        let tables: Vec<DeTable<'_>> = files.iter().zip(texts).map(|(file, text)| file.parse(text)).collect();
        let roots: Vec<Table<'_>> =
            files.iter().zip(&tables).map(|(file, map)| Table::root(file, map)).collect();
        let compiled = compile_roots(&roots, &files, sources);
        let mut errors: Vec<LoadError> = files.iter().flat_map(File::take_errors).collect();
        let (policy, more) = compiled;
        errors.extend(more);
        LoadErrors::check(errors)?;
        policy.ok_or_else(|| LoadError::of_file(MANIFEST, "there is no policy in it").into())
    }

    /// Compile the policy in a canonical archive, as [`Policy::bundle`] returns it.
    ///
    /// # Errors
    /// When the bytes are not a canonical archive, or what is in them is no policy.
    pub fn from_bundle(bytes: &[u8]) -> Result<Self, LoadErrors> {
        Self::compile(&Sources::from_bundle(bytes)?)
    }

    /// The digest of all the policy's text.
    #[must_use]
    pub fn epoch(&self) -> Digest {
        self.epoch
    }

    /// The name of the environment in force; `default` when the manifest defines none.
    #[must_use]
    pub fn env(&self) -> &Arc<str> {
        &self.env
    }

    /// How many different approvers must have signed the epoch for it to be loaded; 0 when the manifest does not say.
    #[must_use]
    pub const fn required_signatures(&self) -> u64 {
        self.signatures
    }

    /// Whether the rule with this id matches the call: `Some(true)` when only because something is unknown. Rules in shadow
    /// match as enforced ones do.
    #[must_use]
    pub fn rule_matches(&self, id: &RuleId, call: &Call, now: Timestamp) -> Option<bool> {
        let rule = self.rules.get(self.rules.binary_search_by(|rule| rule.id.cmp(id)).ok()?)?;
        let of_action = rule.scope.actions.contains(&call.action());
        of_action.then(|| how_it_matches(rule, &View::without_past(call, now))).flatten()
    }

    /// The canonical archive of the policy's text, whose digest is the epoch.
    #[must_use]
    pub fn bundle(&self) -> &[u8] {
        &self.bundle
    }

    /// How long an agent makes no call before its labels are forgotten, in milliseconds.
    #[must_use]
    pub const fn idle_ms(&self) -> u64 {
        self.idle_ms
    }

    /// What is said of this tool function, such as `payments.send`; `None` when nothing is.
    #[must_use]
    pub fn tool_labels(&self, function: &str) -> Option<&ToolLabels> {
        if self.tool_labels.is_empty() { None } else { self.tool_labels.get(function) }
    }

    /// What records may show.
    #[must_use]
    pub fn disclosure(&self) -> &Arc<Disclosure> {
        &self.disclosure
    }

    /// The registered agent of this name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<Arc<Agent>> {
        self.agents.get(name).cloned()
    }

    /// All registered agents, by name.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values()
    }

    /// All registered tools, by name.
    pub fn tools(&self) -> impl Iterator<Item = &ToolEntry> {
        self.tools.values()
    }

    /// The tool registered under this component name.
    #[must_use]
    pub fn tool(&self, component: &str) -> Option<&ToolEntry> {
        self.tools.get(component)
    }

    /// The tool registered with these component bytes.
    #[must_use]
    pub fn tool_by_digest(&self, digest: Digest) -> Option<&ToolEntry> {
        self.digests.get(&digest).and_then(|name| self.tools.get(name))
    }

    /// The notification target of this name.
    #[must_use]
    pub fn notify(&self, name: &str) -> Option<&NotifyTarget> {
        self.notify.get(name)
    }

    /// All rules, by id.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &RuleInfo> {
        self.infos.iter()
    }

    /// The rule with this id; `None` for built-in rules.
    #[must_use]
    pub fn rule(&self, id: &RuleId) -> Option<&RuleInfo> {
        let at = self.rules.binary_search_by(|rule| rule.id.cmp(id)).ok()?;
        self.infos.get(at)
    }
}

/// Compile what could be read. The policy is only good when no mistake was reported, here or in any file.
fn compile_roots<'t>(
    roots: &[Table<'t>],
    files: &'t [File<'t>],
    sources: &Sources,
) -> (Option<Policy>, Vec<LoadError>) {
    let Some(manifest) = roots.first() else { return (None, Vec::new()) };
    if !manifest::schema_is_known(manifest) {
        return (None, Vec::new());
    }
    let (mut used, layers) = packs(manifest, roots);
    let mut registry = Registry::new(!files.iter().any(File::is_broken));
    roots.iter().for_each(|root| secrets::define(&mut registry.secrets, root));
    for (at, root) in roots.iter().enumerate().filter(|(_, root)| !is_promotions(root)) {
        manifest::check_keys(root, at == 0);
        used.extend(registry.read(root, sources));
    }
    let (env, default) = manifest::environment(manifest, &registry);
    let disclosure = Arc::new(manifest::audit(manifest));
    let promotions = promotions(manifest, roots);
    let rules = rules(roots, &registry, &layers, promotions.as_ref());
    let questions = questions(manifest, roots, &registry, &rules);
    let idle_ms = manifest::idle_ms(manifest);
    let mut errors: Vec<LoadError> = unused(sources, &used).collect();
    errors.extend(lock::check(sources, manifest::flag(manifest, "require_lock")));
    if registry.complete && roots.iter().all(|root| root.get("rule").is_none()) {
        errors.push(
            LoadError::of_file(MANIFEST, "the policy has no rules")
                .with_help("write at least one `[[rule]]`"),
        );
    }
    let (rules, infos): (Vec<Rule>, Vec<RuleInfo>) = rules.into_iter().unzip();
    let (bundle, epoch) = sources.bundle();
    let policy = words().map(|words| Policy {
        epoch,
        env,
        signatures: manifest::signatures(manifest),
        bundle,
        index: Index::new(&rules),
        agents: registry.agents.into_map(),
        tools: registry.tools.into_map(),
        digests: registry.digests,
        notify: registry.notify.into_map(),
        rules,
        infos,
        default,
        ceilings: layers.ceilings,
        questions,
        idle_ms,
        tool_labels: registry.tool_labels,
        disclosure,
        words,
    });
    (policy, errors)
}

/// The label rules, and what they and the rules ask about the past.
fn questions(
    manifest: &Table<'_>,
    roots: &[Table<'_>],
    registry: &Registry,
    rules: &[(Rule, RuleInfo)],
) -> Questions {
    let files = roots.iter().filter(|root| !is_promotions(root));
    let labels = files.flat_map(|root| root.array("label", "a label rule"));
    let mut questions = Questions::default();
    questions.add_labels(labels.filter_map(|table| past::read_label(&table, registry)).collect());
    for (rule, _) in rules {
        questions.add(&rule.when, &rule.scope.actions);
        questions.add(&rule.unless, &rule.scope.actions);
    }
    if questions.too_many() {
        manifest.fail(format!(
            "a policy asks at most {} different questions about the past",
            past::MAX_QUESTIONS
        ));
    }
    questions
}

fn words() -> Option<Words> {
    Some(Words {
        public_address: RuleId::builtin("public-address"),
        address_not_granted: RuleId::builtin("address-not-granted"),
        no_egress: RuleId::builtin("no-egress"),
        ceiling: RuleId::builtin("ceiling"),
        allowed: ReasonCode::new("ALLOWED").ok()?,
    })
}

/// Check that every listed pack holds something; returns the paths of all TOML files in use, and the layers.
fn packs(manifest: &Table<'_>, roots: &[Table<'_>]) -> (BTreeSet<String>, Layers) {
    let mut used = BTreeSet::from([MANIFEST.to_owned(), LOCK.to_owned(), PROMOTIONS.to_owned()]);
    let (packs, layers) = layers::read(manifest);
    for (item, pack) in packs {
        let files = roots.iter().map(|r| &*r.file.text.file);
        let paths: Vec<&str> = files.filter(|path| layers::inside(pack, path)).collect();
        if paths.is_empty() && is_plain_path(pack) {
            item.fail(format!("there is no TOML file in the folder `{pack}`"));
        }
        used.extend(paths.into_iter().map(str::to_owned));
    }
    (used, layers)
}

fn is_promotions(root: &Table<'_>) -> bool {
    &*root.file.text.file == PROMOTIONS
}

/// The promotions, where the manifest asks for them.
fn promotions(manifest: &Table<'_>, roots: &[Table<'_>]) -> Option<Promotions> {
    let promotions = roots.iter().find(|root| is_promotions(root)).map(promotion::read);
    manifest::flag(manifest, "require_shadow").then(|| promotions.unwrap_or_default())
}

/// Files that no pack and no list asks for: they would be part of the epoch and of nothing else.
fn unused<'a>(sources: &'a Sources, used: &'a BTreeSet<String>) -> impl Iterator<Item = LoadError> + 'a {
    let unused = sources.files.iter().filter(|f| !used.contains(&f.path));
    unused.map(|f| LoadError::of_file(&f.path, "no listed pack holds this file and no list names it"))
}

/// The rules of all files, by ascending id.
fn rules(
    roots: &[Table<'_>],
    registry: &Registry,
    layers: &Layers,
    promotions: Option<&Promotions>,
) -> Vec<(Rule, RuleInfo)> {
    let mut rules: Vec<(Rule, RuleInfo)> = Vec::new();
    let mut ids: HashMap<RuleId, Origin> = HashMap::new();
    let mut count: usize = 0;
    let files = roots.iter().filter(|root| !is_promotions(root));
    for table in files.flat_map(|root| root.array("rule", "a rule")) {
        count += 1;
        if count > MAX_RULES {
            table.fail(format!("a policy has at most {MAX_RULES} rules"));
            break;
        }
        let layer = layers.of(&table.file.text.file);
        let Some((rule, mut info)) = rule::read(&table, registry, layer) else { continue };
        if let Some(first) = ids.get(&rule.id) {
            let id = table.get("id");
            id.iter().for_each(|id| id.fail(format!("the rule `{}` is already defined at {first}", rule.id)));
            continue;
        }
        if let Some(promotions) = promotions {
            promotion::check(&table, &mut info, promotions);
        }
        ids.insert(rule.id.clone(), info.origin.clone());
        rules.push((rule, info));
    }
    rules.sort_unstable_by(|a, b| a.0.id.cmp(&b.0.id));
    // Cloned once in this order, so that what belongs to one rule lies together in memory.
    rules.clone()
}

/// Bounds and names of the files, before anything in them is read.
fn out_of_bounds(sources: &Sources) -> Vec<LoadError> {
    let mut errors = Vec::new();
    let total: usize = sources.files.iter().map(|f| f.text.len()).sum();
    if sources.files.len() > MAX_FILES || total > MAX_TOTAL_BYTES {
        let most = format!("a policy has at most {MAX_FILES} files and {MAX_TOTAL_BYTES} bytes");
        errors.push(LoadError::of_file(MANIFEST, most));
    }
    let mut paths = BTreeSet::new();
    for file in &sources.files {
        if file.text.len() > MAX_FILE_BYTES {
            errors.push(LoadError::of_file(&file.path, format!("is longer than {MAX_FILE_BYTES} bytes")));
        }
        if !is_plain_path(&file.path) || !paths.insert(&file.path) {
            errors.push(LoadError::of_file(&file.path, "is not the plain path of one file"));
        }
    }
    errors
}
