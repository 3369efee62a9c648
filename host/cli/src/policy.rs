//! Reading policies.

use crate::{
    args::{PruneFlags, ReportFlags},
    failure::{self, Failure},
    lock_file,
    output::tell,
    secrets::UserSecrets,
    setup,
};
use dray_core::{
    PolicyId,
    policy::{LockedPlugin, Plugin, PluginSource, Policy, PolicyError, Problem, Prune, suggestion},
};
use dray_engine::Places;
use dray_runtime::{Secrets, Tracer};
use dray_session::{
    Environment, OpenError, PolicyTexts, ReadPolicyError, Session,
    artifact::{Missing, Silent, bootstrap, ready},
    read_policy,
};
use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A policy that was read, and where it came from.
pub struct Loaded {
    pub policy: Policy,
    /// What its relative paths are relative to.
    pub base: PathBuf,
    pub name: String,
    /// The first one. Absolute. `None` means standard input.
    path: Option<PathBuf>,
    /// Those that were named beside it.
    more: Vec<PathBuf>,
    pub texts: PolicyTexts,
    /// The folder with reports of scanners.
    pub scan_reports: Option<PathBuf>,
    /// The one file to look for logins in, if the command line names it.
    pub authfile: Option<PathBuf>,
    /// Who hears of the calls of its plugins.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// The artifacts that its lock file has. A sync cannot read that file any more once it is confined.
    pub locked: BTreeMap<String, LockedPlugin>,
}

/// Reads a policy from a file or from standard input, and others that are read as one with it. Relative paths are relative
/// to the folder of the first one.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Failure> {
    let Some((path, more)) = paths.split_first() else { return Err(Failure::usage("read no policy")) };
    if more.iter().any(|path| path == Path::new("-")) {
        return Err(Failure::usage("read the policies: standard input (`-`) can only be the first of them"));
    }
    let mut text = String::new();
    let (name, base) = if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("read the policy from standard input: {error}")))?;
        ("<stdin>".to_owned(), PathBuf::new())
    } else {
        text = lock_file::bounded(path).map_err(|error| unread(path, &error))?;
        (path.display().to_string(), path.parent().unwrap_or(Path::new("")).to_owned())
    };
    let base = std::path::absolute(if base.as_os_str().is_empty() { Path::new(".") } else { &base });
    let base = base.map_err(|error| Failure::usage(format!("find the policy's folder: {error}")))?;
    let environment = |variable: &str| std::env::var(variable).ok();
    match read_policy(&name, text, &base, more, &environment) {
        Ok((policy, texts)) => {
            let path = path.file_name().filter(|_| path != Path::new("-")).map(|file| base.join(file));
            let name = [name].into_iter().chain(more.iter().map(|path| path.display().to_string()));
            let name = name.collect::<Vec<_>>().join(" and ");
            let more =
                more.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect();
            let mut loaded = Loaded {
                policy,
                base,
                name,
                path,
                more,
                texts,
                scan_reports: None,
                authfile: None,
                tracer: None,
                locked: BTreeMap::new(),
            };
            let by_tag = |plugin: &Plugin| match &plugin.source.value {
                PluginSource::Artifact(source) => source.digest.is_none(),
                PluginSource::File(_) => false,
            };
            if loaded.policy.plugins.values().any(by_tag) {
                // Standard input has no lock file.
                if let Ok(path) = loaded.lock_file() {
                    loaded.locked =
                        lock_file::read(&path)?.map(|lock| lock.plugins().clone()).unwrap_or_default();
                }
            }
            Ok(loaded)
        }
        Err(ReadPolicyError::Wrong(texts, error)) => Err(Failure::Policy { texts, error }),
        Err(ReadPolicyError::Failed(error)) => Err(Failure::Usage(error)),
    }
}

fn unread(path: &Path, error: &std::io::Error) -> Failure {
    let text = format!("read the policy {}: {error}", path.display());
    let error = dray_engine::Error::new(dray_engine::Kind::Io, text);
    Failure::Usage(match path.exists() {
        true => error,
        false => {
            error.help("name a policy, or write one as dray.toml in this folder; docs/policy.md shows how")
        }
    })
}

impl Loaded {
    /// The absolute paths of the policy and of those that were named beside it. Standard input has none.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.path.iter().chain(&self.more).cloned().collect()
    }

    /// The absolute paths, for the journal, which is read in other folders.
    pub fn whole_name(&self) -> String {
        let paths: Vec<String> = self.paths().iter().map(|path| path.display().to_string()).collect();
        if paths.is_empty() { self.name.clone() } else { paths.join(" and ") }
    }

    /// The file that holds the lock of this policy.
    ///
    /// # Errors
    /// Fails if the policy came from standard input.
    pub fn lock_file(&self) -> Result<PathBuf, Failure> {
        let path = self.path.as_ref().map(|path| path.with_extension("lock"));
        if path.as_ref() == self.path.as_ref() && path.is_some() {
            return Err(Failure::usage(format!("find the lock file: {} would be its own", self.name)));
        }
        path.ok_or_else(|| Failure::usage("find the lock file: the policy comes from standard input"))
    }

    /// Makes mistakes of the policy a failure of the command.
    pub fn mistaken(&self, problems: Vec<Problem>) -> Failure {
        Failure::Policy { texts: self.texts.clone(), error: PolicyError(problems) }
    }

    /// Keeps only the rules of these names. An empty list keeps all.
    pub fn choose(&mut self, names: &[String]) -> Result<(), Failure> {
        let known: Vec<String> = self.policy.rules.iter().map(|rule| rule.name.value.clone()).collect();
        for name in names {
            if !known.contains(name) {
                let help = suggestion(name, known.iter().map(String::as_str))
                    .unwrap_or_else(|| format!("its rules are {}", known.join(", ")));
                let error = dray_engine::Error::new(
                    dray_engine::Kind::Invalid,
                    format!("find the rule `{name}`: {} has none of that name", self.name),
                );
                return Err(Failure::Usage(error.help(help)));
            }
        }
        if !names.is_empty() {
            self.policy.keep_rules(names);
        }
        Ok(())
    }

    /// Fails if the policy has only `[[retain]]`, which `dray sync` and `dray plan` do nothing with.
    ///
    /// # Errors
    /// Fails if it has no rule.
    pub fn has_rules(&self) -> Result<(), Failure> {
        if !self.policy.rules.is_empty() || self.policy.retains.is_empty() {
            return Ok(());
        }
        let text = format!("sync anything: {} has no [[rule]]", self.name);
        let error = dray_engine::Error::new(dray_engine::Kind::Invalid, text);
        Err(Failure::Usage(error.help("`dray retain` looks at its [[retain]]")))
    }

    /// Sets what is deleted at the destinations, if flags say it. A rule that has `prune` itself keeps it; a limit of the
    /// command line holds for this run instead of that of the policy.
    pub fn prune(&mut self, flags: &PruneFlags) {
        for rule in &mut self.policy.rules {
            if flags.prune && !rule.order.is_said {
                rule.order.prune = Prune::Own;
            }
            if let Some(limit) = flags.prune_limit {
                rule.order.limit = limit;
            }
        }
    }

    /// Sets the folder with reports of scanners.
    pub fn with_reports(&mut self, flags: &ReportFlags) -> Result<(), Failure> {
        if let Some(folder) = flags.scan_report.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Failure::usage(format!("read reports: {} is no folder", folder.display())));
        }
        let absolute = flags.scan_report.as_ref().map(std::path::absolute).transpose();
        self.scan_reports =
            absolute.map_err(|error| Failure::usage(format!("find the folder of reports: {error}")))?;
        Ok(())
    }

    /// What tells this policy from others: its path, and the digest of what it says. To be asked for before rules are
    /// chosen or narrowed. `None` means that it came from standard input or from several files, and cannot be read again by its path.
    pub fn id(&self) -> Option<PolicyId> {
        if !self.more.is_empty() {
            return None;
        }
        Some(self.texts.id(self.path.as_ref()?, &self.policy))
    }

    /// Tells what is probably a mistake.
    pub fn warn(&self) {
        for warning in &self.policy.warnings {
            failure::warn(&self.texts, warning);
        }
    }

    /// Makes its plugins ready: finds their components, and fetches what this machine does not hold, if `fetch` says so. Returns what a
    /// session finds around it.
    pub async fn with_plugins(&mut self, fetch: bool) -> Result<Environment, Failure> {
        let environment = self.environment()?;
        if self.policy.plugins.is_empty() {
            return Ok(environment);
        }
        let mut missing = self.missing_plugins(&environment, false).await?;
        if fetch && !missing.is_empty() {
            for Missing { name, digest, source } in &missing {
                tell!("fetching the plugin {name} ({}) from {source}", digest.short());
            }
            missing = self.missing_plugins(&environment, true).await?;
        }
        if missing.is_empty() {
            return Ok(environment);
        }
        let problem = |missing: &Missing| {
            let span = self.policy.plugins[&missing.name].source.span.clone();
            let message = format!("the plugin {} is not installed on this machine", missing.name);
            Problem { message, span: Some(span), help: Some("`dray plugin install` fetches it".into()) }
        };
        Err(self.mistaken(missing.iter().map(problem).collect()))
    }

    async fn missing_plugins(
        &mut self,
        environment: &Environment,
        fetch: bool,
    ) -> Result<Vec<Missing>, Failure> {
        let (base, locked) = (&self.base, &self.locked);
        let found = ready(&mut self.policy, base, locked, environment, fetch, Arc::new(Silent)).await;
        found.map_err(|error| self.failed(error))
    }

    /// The keys of which one must have signed a plugin.
    pub fn trusted_keys(&self, name: &str) -> Vec<PathBuf> {
        let keys = self.policy.plugins.get(name).map(|plugin| plugin.trusted_keys.as_slice());
        keys.unwrap_or_default().iter().map(|key| self.base.join(key)).collect()
    }

    /// The places from which its plugins are fetched, which are reached without any of them.
    pub async fn plugin_places(&self) -> Result<Arc<Places>, Failure> {
        let environment = self.environment()?;
        let opened = Session::open(bootstrap(&self.policy), &self.base, environment).await;
        opened.map(|session| session.places().clone()).map_err(|error| self.failed(error))
    }

    fn environment(&self) -> Result<Environment, Failure> {
        let mut environment = setup::environment(&self.base, self.authfile.as_deref())?;
        environment.local.scan_reports.clone_from(&self.scan_reports);
        environment.tracer.clone_from(&self.tracer);
        Ok(environment)
    }

    /// Opens a session of the policy.
    pub async fn open(mut self) -> Result<Session, Failure> {
        self.warn();
        let named = self.policy.registries_named();
        let missing = missing_secrets(&self, |name| named.contains(name));
        if !missing.is_empty() {
            return Err(self.mistaken(missing));
        }
        let environment = self.with_plugins(true).await?;
        let opened = Session::open(self.policy.clone(), &self.base, environment).await;
        opened.map_err(|error| self.failed(error))
    }

    /// Makes what kept a session from opening a failure of the command.
    pub fn failed(&self, error: OpenError) -> Failure {
        match error {
            OpenError::Policy(error) => self.mistaken(error.0),
            OpenError::Failed(error) => error.into(),
        }
    }
}

/// Secrets that the policy names for some of its registries and that are not there: a login would fail without them.
pub fn missing_secrets(loaded: &Loaded, wanted: impl Fn(&str) -> bool) -> Vec<Problem> {
    let secrets = UserSecrets { base: loaded.base.clone(), authfile: None };
    let mut problems = Vec::new();
    let registries = loaded.policy.registries.iter().filter(|(name, _)| wanted(name));
    let registries = registries.map(|(_, registry)| registry).chain([&loaded.policy.default_registry]);
    for call in registries.flat_map(|registry| registry.auth.iter().flatten()) {
        for (key, named) in call.secrets() {
            if let Err(error) = secrets.get(&named) {
                let span = call.keys.get(key).unwrap_or(&call.span).clone();
                problems.push(Problem {
                    message: format!("failed to {error}"),
                    span: Some(span),
                    help: error.help,
                });
            }
        }
    }
    problems
}
