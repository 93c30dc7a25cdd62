//! A component, checked against the coverage manifest before anything of it can run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use govrun_verdict::{Builtin, Digest};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as ADAPTER,
};
use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, InstancePre, Linker};
use wit_component::ComponentEncoder;

use crate::cache::{CompileCache, Compiled};
use crate::coverage::{self, Interface};
use crate::runtime::CallState;

/// Largest component file, in bytes.
pub const MAX_COMPONENT_BYTES: u64 = 128 * 1024 * 1024;

/// What a core module begins with.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Why a component does not load. Each message is one sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read component `{path}`: {source}; check the path and its permissions")]
    Read {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than [`MAX_COMPONENT_BYTES`].
    #[error("component `{path}` has {bytes} bytes, more than the {MAX_COMPONENT_BYTES} that are accepted")]
    TooLarge {
        /// The path as given.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is a core module that cannot be run as a preview-1 command.
    #[error(
        "`{path}` is a core WebAssembly module and no WASI preview-1 command: {detail}; build it for wasm32-wasip2"
    )]
    CoreModule {
        /// The path as given.
        path: PathBuf,
        /// Why, one line.
        detail: String,
    },
    /// The file is not a valid component.
    #[error("`{path}` is not a valid WebAssembly component: {detail}; rebuild it for wasm32-wasip2")]
    Invalid {
        /// The path as given.
        path: PathBuf,
        /// What the validator said, one line.
        detail: String,
    },
    /// An import is not in the coverage manifest.
    #[error(
        "`{path}` imports `{import}`, which is not governed, so it does not load ({}); rebuild it without that import",
        Builtin::ImportNotGoverned.info().code
    )]
    Import {
        /// The path as given.
        path: PathBuf,
        /// The import.
        import: String,
    },
}

/// One import with its treatment; `None` means that the component is refused because of it.
#[derive(Debug, Clone)]
pub struct Import {
    /// The import as the component spells it.
    pub name: String,
    /// The manifest's entry.
    pub interface: Option<&'static Interface>,
}

/// One callable export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Name that calls use, such as `send`.
    pub name: String,
    /// Parameters and result as WIT text, such as `(counterparty: string, amount: u64) -> result<string, string>`.
    pub signature: String,
    /// JSON Schema of its arguments.
    pub input: serde_json::Value,
    /// JSON Schema of what it gives, if it gives anything.
    pub output: Option<serde_json::Value>,
}

/// A compiled component whose bytes and imports are known. It has not been instantiated.
#[derive(Clone)]
pub struct Inspected {
    /// BLAKE3 of the bytes.
    pub digest: Digest,
    /// Every import in the order of the component.
    pub imports: Vec<Import>,
    /// Functions exported at the top level, sorted by name.
    pub functions: Vec<Function>,
    /// True when it exports `wasi:cli/run`, so that `govrun run` can start it.
    pub command: bool,
    /// True when the bytes are a preview-1 core module, which runs inside the standard adapter.
    pub preview1: bool,
    /// Where the compiled code came from.
    pub compiled: Compiled,
    path: PathBuf,
    component: Component,
}

/// A component that may be instantiated: every import is governed or harmless.
///
/// There is no way to get one around [`Inspected::admit`], so the check cannot be forgotten.
#[derive(Clone)]
pub struct Admitted {
    inspected: Arc<Inspected>,
    // Linked once, at the first call; every call makes its own instance of it.
    linked: Arc<OnceLock<InstancePre<CallState>>>,
}

impl Inspected {
    /// Read, validate and compile the component at `path`. With a cache, what was compiled before is not compiled again.
    ///
    /// # Errors
    /// See [`LoadError`]; an ungoverned import is not an error here but in [`Self::admit`].
    pub fn load(engine: &Engine, cache: Option<&CompileCache>, path: &Path) -> Result<Self, LoadError> {
        Self::from_bytes(engine, cache, path, &read_bounded(path)?)
    }

    /// The same for bytes that are already in memory; `path` names them in messages.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn from_bytes(
        engine: &Engine,
        cache: Option<&CompileCache>,
        path: &Path,
        bytes: &[u8],
    ) -> Result<Self, LoadError> {
        let preview1 = bytes.starts_with(CORE_MODULE);
        let wrapped = if preview1 { adapted(path, bytes)? } else { Vec::new() };
        let binary = if preview1 { &wrapped } else { bytes };
        // The compiler would also accept the text format; a tool is bytes with a digest, never source text.
        let (component, compiled) = match cache {
            Some(cache) => cache.component(engine, binary),
            None => Component::from_binary(engine, binary).map(|component| (component, Compiled::Fresh)),
        }
        .map_err(|e| LoadError::Invalid {
            path: path.to_owned(),
            detail: one_line(&e.root_cause().to_string()),
        })?;
        let kind = component.component_type();
        let imports = kind
            .imports(engine)
            .map(|(name, _)| Import { name: name.to_owned(), interface: coverage::lookup(name) })
            .collect();
        let mut functions: Vec<Function> = kind
            .exports(engine)
            .filter_map(|(name, item)| match item.ty {
                ComponentItem::ComponentFunc(f) => Some(Function {
                    name: name.to_owned(),
                    signature: signature(&f),
                    input: crate::schema::input(&f),
                    output: crate::schema::output(&f),
                }),
                _ => None,
            })
            .collect();
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        let command = kind.exports(engine).any(|(name, _)| name.starts_with("wasi:cli/run@0.2."));
        let digest = Digest::of(bytes);
        Ok(Self { digest, imports, functions, command, preview1, compiled, path: path.to_owned(), component })
    }

    /// The component, when each of its imports is governed or harmless.
    ///
    /// # Errors
    /// [`LoadError::Import`] with the first import that is neither.
    pub fn admit(self) -> Result<Admitted, LoadError> {
        match self.imports.iter().find(|i| i.interface.is_none()) {
            Some(import) => Err(LoadError::Import { path: self.path, import: import.name.clone() }),
            None => Ok(Admitted { inspected: Arc::new(self), linked: Arc::default() }),
        }
    }
}

impl Admitted {
    /// What is known about it.
    #[must_use]
    pub fn inspected(&self) -> &Inspected {
        &self.inspected
    }

    /// The compiled code.
    #[must_use]
    pub fn component(&self) -> &Component {
        &self.inspected.component
    }

    /// The component with its imports resolved, ready to be instantiated. Every runtime has the same imports, and an
    /// engine only accepts what it compiled itself.
    pub(crate) fn linked(&self, linker: &Linker<CallState>) -> wasmtime::Result<&InstancePre<CallState>> {
        if let Some(linked) = self.linked.get() {
            return Ok(linked);
        }
        let linked = linker.instantiate_pre(&self.inspected.component)?;
        Ok(self.linked.get_or_init(|| linked))
    }
}

/// A preview-1 command as a component. The adapter turns each preview-1 call into WASI 0.2 calls, which are governed.
fn adapted(path: &Path, module: &[u8]) -> Result<Vec<u8>, LoadError> {
    let adapted = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.adapter(ADAPTER_NAME, ADAPTER))
        .and_then(|mut encoder| encoder.encode());
    adapted.map_err(|e| LoadError::CoreModule {
        path: path.to_owned(),
        detail: one_line(&e.root_cause().to_string()),
    })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_COMPONENT_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read(path).map_err(unreadable)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn signature(f: &ComponentFunc) -> String {
    let params: Vec<String> =
        f.params().map(|(name, ty)| format!("{name}: {}", crate::value::wit_type(&ty))).collect();
    let result: Vec<String> = f.results().map(|ty| crate::value::wit_type(&ty)).collect();
    match result.as_slice() {
        [] => format!("({})", params.join(", ")),
        types => format!("({}) -> {}", params.join(", "), types.join(", ")),
    }
}
