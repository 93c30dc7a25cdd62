//! Loading components by the registry of a policy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_host::component::{Inspected, LoadError};
use govrun_host::wasmtime::Engine;
use govrun_host::{CompileCache, Compiled, Offers, Tool};
use govrun_policy::Policy;
use govrun_verdict::{FsMode, Preopen};

use crate::exit::{Exit, Failure};
use crate::offers::offers;

/// Loads components as the registry of a policy says.
pub(crate) struct Loader<'a> {
    /// Compiles them.
    pub(crate) engine: &'a Engine,
    /// Keeps what was compiled.
    pub(crate) cache: Option<CompileCache>,
    /// Has the registry.
    pub(crate) policy: &'a Policy,
    /// Where the policy was loaded from.
    pub(crate) folder: &'a Path,
}

impl Loader<'_> {
    /// The component at `path`, named and offered to as the registry says for its digest.
    ///
    /// An unregistered component is named after its file and offered nothing; policy decides whether it may run at all.
    pub(crate) fn load(&self, path: &Path) -> Result<Tool, Failure> {
        let inspected = self.inspect(path).map_err(|e| Failure::new(Exit::Usage, e))?;
        let entry = self.policy.tool_by_digest(inspected.digest);
        let name: Arc<str> = match entry {
            Some(entry) => Arc::clone(&entry.name),
            None => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                format!("unregistered:{stem}").into()
            }
        };
        let offers = match entry {
            Some(entry) => offers(&entry.resolve(&absolute(self.folder)?))?,
            None => Offers::default(),
        };
        let component = inspected.admit().map_err(|e| Failure::new(Exit::Block, e))?;
        Ok(Tool { name, component, offers })
    }

    /// The tools that `tool` can call: all registered ones when it imports `govrun:host/tools`, else none. Loading them
    /// takes time that others need not spend.
    pub(crate) fn callable(&self, tool: &Tool) -> Result<Vec<Tool>, Failure> {
        let imports = &tool.component.inspected().imports;
        if imports.iter().any(|import| import.name.starts_with("govrun:host/tools@")) {
            self.registered()
        } else {
            Ok(Vec::new())
        }
    }

    /// Every registered tool that names its component file.
    ///
    /// A file whose bytes are not the registered ones is an error, not a tool.
    pub(crate) fn registered(&self) -> Result<Vec<Tool>, Failure> {
        let base = absolute(self.folder)?;
        let mut tools = Vec::new();
        for entry in self.policy.tools() {
            let resolved = entry.resolve(&base);
            let Some(path) = &resolved.component else { continue };
            let inspected = self.inspect(path).map_err(|e| Failure::new(Exit::Configuration, e))?;
            if inspected.digest != entry.digest {
                return Err(Failure::new(
                    Exit::Configuration,
                    format!(
                        "`{}` has the digest {}, but tool `{}` is registered with {} (TOOL-DIGEST-MISMATCH); if the change is wanted, update the [[tool]] entry",
                        path.display(),
                        inspected.digest,
                        entry.name,
                        entry.digest
                    ),
                ));
            }
            let component = inspected.admit().map_err(|e| Failure::new(Exit::Configuration, e))?;
            tools.push(Tool { name: Arc::clone(&entry.name), component, offers: offers(&resolved)? });
        }
        Ok(tools)
    }

    fn inspect(&self, path: &Path) -> Result<Inspected, LoadError> {
        let inspected = Inspected::load(self.engine, self.cache.as_ref(), path)?;
        if let Compiled::Again(why) = inspected.compiled {
            eprintln!(
                "govrun: the compiled form of `{}` in the cache was not used: {why}; it was compiled again. Somebody or something changed the cache",
                path.display()
            );
        }
        Ok(inspected)
    }
}

/// An offered directory as the host compares with: canonical, and really one.
pub(crate) fn directory(tool: &str, dir: &Preopen) -> Result<(PathBuf, String, FsMode), Failure> {
    let host = Path::new(&*dir.host);
    let canonical = host.canonicalize().and_then(|path| match path.is_dir() {
        true => Ok(path),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    });
    match canonical {
        Ok(path) => Ok((path, dir.guest.to_string(), dir.mode)),
        Err(error) => Err(Failure::new(
            Exit::Configuration,
            format!(
                "the directory `{}` that tool `{tool}` is offered as `{}` cannot be used: {error}; create it, or correct `dirs` of the [[tool]] entry",
                host.display(),
                dir.guest
            ),
        )),
    }
}

fn absolute(folder: &Path) -> Result<PathBuf, Failure> {
    folder.canonicalize().map_err(|e| {
        Failure::new(Exit::Configuration, format!("cannot open policy folder `{}`: {e}", folder.display()))
    })
}
