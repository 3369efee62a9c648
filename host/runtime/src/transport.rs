//! Adapts transports to the engine.

use crate::{
    bindings::guest,
    convert,
    load::Loaded,
    state::{Scope, State},
};
use dray_core::{Descriptor, Digest, Manifest, Naming};
use dray_engine::{
    Error, Kind, Result,
    contract::{
        Capabilities, Context, Found, Incoming, Listed, NewName, NextStep, Outcome, Page, Parsed,
        RawManifest, Segment, TagPage, Transport,
    },
};
use futures_core::future::BoxFuture;
use std::sync::{Arc, Mutex, atomic::Ordering};
use tokio::sync::Semaphore;
use wasmtime::{Store, component::Instance};

/// How many segments one blob may have. A plugin that gives more is wrong.
const SEGMENTS: usize = 100_000;

pub(crate) struct WasmTransport {
    scheme: String,
    plugin: Arc<Loaded>,
    references: guest::references::GuestIndices,
    catalog: guest::catalog::GuestIndices,
    /// `None` means that its lists have only names.
    listing: Option<guest::listing::GuestIndices>,
    /// `None` means that the transport cannot be read.
    source: Option<guest::source::GuestIndices>,
    /// `None` means that the transport cannot be written to.
    sink: Option<guest::sink::GuestIndices>,
    /// `None` means that each image is named by itself.
    together: Option<guest::naming_together::GuestIndices>,
    /// `None` means that nothing has to be made before a repository is written to.
    provision: Option<guest::provision::GuestIndices>,
    /// `None` means that the transport removes no images.
    removal: Option<guest::removal::GuestIndices>,
    /// Limits how many instances of this place run at once, because each one that waits for its host uses memory.
    at_once: Semaphore,
    /// Instances that have answered. They can be called again, because they keep nothing between two calls.
    idle: Mutex<Vec<(Store<State>, Instance)>>,
}

/// How many idle instances of one plugin are kept for all places together. Each has several memory mappings, of which a
/// process may have 65,530 (`vm.max_map_count`).
const IDLE: usize = 256;

/// How many calls of one place's transport may run at once. A call never waits for another one of the same place.
const AT_ONCE: usize = 128;

/// `asking!(self, indices, scope, function, arguments…)`
macro_rules! asking {
    ($self:ident, $indices:expr, $scope:expr, $function:ident $(, $argument:expr)*) => {{
        let indices = $indices;
        // The semaphore is never closed.
        let _one = $self.at_once.acquire().await.ok();
        let (mut store, instance) = $self.instance($scope).await?;
        let begun = std::time::Instant::now();
        let called = async { indices.load(&mut store, &instance)?.$function(&mut store $(, $argument)*).await };
        let result = called.await.map_err(|trap| crate::adapt::explained(trap, store.data()));
        $self.plugin.traced(stringify!($function), begun, &($(&$argument,)*), &result, store.data_mut());
        if result.is_ok() {
            $self.rest(store, instance);
        }
        $self.plugin.answer(stringify!($function), result)
    }};
}

impl WasmTransport {
    pub fn new(scheme: &str, plugin: Arc<Loaded>) -> Result<Self> {
        let failed = |error: wasmtime::Error| plugin.unfit(&error);
        Ok(WasmTransport {
            scheme: scheme.into(),
            references: guest::references::GuestIndices::new(&plugin.pre).map_err(failed)?,
            catalog: guest::catalog::GuestIndices::new(&plugin.pre).map_err(failed)?,
            listing: guest::listing::GuestIndices::new(&plugin.pre).ok(),
            source: guest::source::GuestIndices::new(&plugin.pre).ok(),
            sink: guest::sink::GuestIndices::new(&plugin.pre).ok(),
            together: guest::naming_together::GuestIndices::new(&plugin.pre).ok(),
            provision: guest::provision::GuestIndices::new(&plugin.pre).ok(),
            removal: guest::removal::GuestIndices::new(&plugin.pre).ok(),
            plugin,
            at_once: Semaphore::new(AT_ONCE),
            idle: Mutex::default(),
        })
    }

    /// An idle instance, or a new one.
    async fn instance(&self, scope: Scope) -> Result<(Store<State>, Instance)> {
        let idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        match idle {
            Some((mut store, instance)) => {
                self.plugin.idle.fetch_sub(1, Ordering::Relaxed);
                store.data_mut().begin(scope);
                store.set_epoch_deadline(1);
                Ok((store, instance))
            }
            None => self.plugin.instance(scope).await,
        }
    }

    /// Keeps an instance that has answered, if it is small and not too many are kept.
    fn rest(&self, mut store: Store<State>, instance: Instance) {
        if !store.data().is_small() {
            return;
        }
        if self.plugin.idle.fetch_add(1, Ordering::Relaxed) >= IDLE {
            self.plugin.idle.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        store.data_mut().begin(Scope::default());
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((store, instance));
    }

    fn source(&self) -> Result<&guest::source::GuestIndices> {
        self.source.as_ref().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("read images: {} can only be written", self.plugin.name))
        })
    }

    fn sink(&self) -> Result<&guest::sink::GuestIndices> {
        self.sink.as_ref().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("write images: {} can only be read", self.plugin.name))
        })
    }
}

impl WasmTransport {
    fn removal(&self) -> Result<&guest::removal::GuestIndices> {
        let none = || Error::new(Kind::Unsupported, format!("remove images: {} cannot", self.plugin.name));
        self.removal.as_ref().ok_or_else(none)
    }
}

impl Drop for WasmTransport {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.plugin.idle.fetch_sub(idle.len(), Ordering::Relaxed);
    }
}

fn at(context: &Context) -> Scope {
    Scope { context: Some(context.clone()), ..Scope::default() }
}

impl Transport for WasmTransport {
    fn name(&self) -> &str {
        &self.plugin.name
    }

    fn trusted(&self) -> bool {
        self.plugin.builtin
    }

    fn granted_hosts(&self) -> &[String] {
        &self.plugin.grant().hosts
    }

    fn granted_files(&self) -> &[std::path::PathBuf] {
        &self.plugin.grant().files
    }

    fn has_dialects(&self) -> bool {
        self.plugin.builtin && self.scheme == "docker"
    }

    fn parse<'a>(
        &'a self,
        rest: &'a str,
        pattern: bool,
        registries: &'a [String],
    ) -> BoxFuture<'a, Result<Parsed>> {
        Box::pin(async move {
            let parsed = asking!(
                self,
                &self.references,
                Scope::default(),
                call_parse,
                &self.scheme,
                rest,
                pattern,
                registries
            )?;
            if parsed.location.is_empty() {
                return Err(Error::new(
                    Kind::Plugin,
                    format!("read {rest}: the plugin {} gave it no place", self.plugin.name),
                ));
            }
            Ok(Parsed {
                location: parsed.location,
                repository: parsed.repository,
                reference: parsed.reference,
                root: parsed.root.map(convert::root),
                host: parsed.host,
                private: parsed.private,
                separate_blobs: parsed.separate_blobs,
            })
        })
    }

    fn repositories<'a>(
        &'a self,
        context: Context,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>> {
        Box::pin(async move {
            let page = asking!(
                self,
                &self.catalog,
                at(&context),
                call_repositories,
                context.location(),
                next.as_deref()
            )?;
            Ok(Page { items: page.names, next: page.next })
        })
    }

    fn tags<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<TagPage>> {
        Box::pin(async move {
            if let Some(listing) = &self.listing {
                let page = asking!(
                    self,
                    listing,
                    at(&context),
                    call_tags,
                    context.location(),
                    repository,
                    next.as_deref()
                )?;
                return Ok(convert::tag_page(page));
            }
            let page = asking!(
                self,
                &self.catalog,
                at(&context),
                call_tags,
                context.location(),
                repository,
                next.as_deref()
            )?;
            Ok(TagPage {
                items: page.names.into_iter().map(Listed::name).collect(),
                next: page.next,
                behind: None,
            })
        })
    }

    fn resolve<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        reference: Option<&'a str>,
        known: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Found>> {
        Box::pin(async move {
            let known = known.map(Digest::to_string);
            let found = asking!(
                self,
                &self.catalog,
                at(&context),
                call_resolve,
                context.location(),
                repository,
                reference,
                known.as_deref()
            )?;
            convert::found(found)
        })
    }

    fn fetch<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        reference: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RawManifest>> {
        Box::pin(async move {
            let manifest = asking!(
                self,
                self.source()?,
                at(&context),
                call_fetch,
                context.location(),
                repository,
                reference
            )?;
            Ok(convert::manifest(manifest))
        })
    }

    fn referrers<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        subject: &'a Digest,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<Descriptor>>> {
        Box::pin(async move {
            let subject = subject.to_string();
            let page = asking!(
                self,
                self.source()?,
                at(&context),
                call_referrers,
                context.location(),
                repository,
                &subject,
                next.as_deref()
            )?;
            let items = page.descriptors.into_iter().map(convert::descriptor).collect::<Result<_>>()?;
            Ok(Page { items, next: page.next })
        })
    }

    fn locate<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<Segment>>> {
        Box::pin(async move {
            let blob = convert::descriptor_to_guest(blob);
            let segments = asking!(
                self,
                self.source()?,
                at(&context),
                call_locate,
                context.location(),
                repository,
                &blob
            )?;
            if segments.len() > SEGMENTS {
                return Err(Error::new(
                    Kind::Plugin,
                    format!(
                        "locate {}: the plugin {} names {} pieces",
                        blob.digest,
                        self.plugin.name,
                        segments.len()
                    ),
                ));
            }
            Ok(segments.into_iter().map(convert::segment).collect())
        })
    }

    fn capabilities<'a>(&'a self, context: Context) -> BoxFuture<'a, Result<Capabilities>> {
        Box::pin(async move {
            let sink = self.sink()?;
            let (mut store, instance) = self.instance(at(&context)).await?;
            let given = async {
                sink.load(&mut store, &instance)?.call_get_capabilities(&mut store, context.location()).await
            };
            let given = given.await.map_err(|error| self.plugin.trapped("get-capabilities", error))?;
            self.rest(store, instance);
            Ok(convert::capabilities(given))
        })
    }

    fn store<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        incoming: &'a Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> BoxFuture<'a, Result<NextStep>> {
        Box::pin(async move {
            let (incoming, last) = (convert::incoming(incoming), last.map(convert::outcome));
            let next = asking!(
                self,
                self.sink()?,
                at(&context),
                call_store_blob,
                context.location(),
                repository,
                &incoming,
                state.as_deref(),
                last.as_ref()
            )?;
            Ok(convert::next_step(next))
        })
    }

    fn publish<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        manifest: &'a Manifest,
        naming: &'a Naming,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let digest = manifest.descriptor.digest.to_string();
            let manifest = guest::sink::Manifest {
                media_type: manifest.descriptor.media_type.clone(),
                body: manifest.body.clone(),
                signatures: manifest.signatures.clone(),
            };
            asking!(
                self,
                self.sink()?,
                at(&context),
                call_publish,
                context.location(),
                repository,
                &digest,
                &manifest,
                &convert::naming(naming)
            )
        })
    }

    fn names_together(&self) -> bool {
        self.together.is_some()
    }

    fn name_together<'a>(
        &'a self,
        context: Context,
        names: &'a [NewName],
    ) -> BoxFuture<'a, Result<Vec<Result<()>>>> {
        Box::pin(async move {
            let singly = || Error::new(Kind::Unsupported, "name several images at once");
            let together = self.together.as_ref().ok_or_else(singly)?;
            let names: Vec<_> = names.iter().map(convert::new_name).collect();
            let answers = asking!(self, together, at(&context), call_name, context.location(), &names)?;
            if answers.len() != names.len() {
                let (asked, told) = (names.len(), answers.len());
                let text = format!(
                    "name {asked} images: the plugin {} answered for {told} of them",
                    self.plugin.name
                );
                return Err(Error::new(Kind::Plugin, text));
            }
            Ok(answers.into_iter().map(|answer| answer.map_err(convert::error)).collect())
        })
    }

    /// None of dray's own places needs anything, so none of them is asked.
    fn provisions(&self) -> bool {
        self.provision.is_some() && !self.plugin.builtin
    }

    fn prepare<'a>(&'a self, context: Context, repository: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let nothing = || Error::new(Kind::Unsupported, "prepare a repository: it needs nothing");
            let provision = self.provision.as_ref().ok_or_else(nothing)?;
            asking!(self, provision, at(&context), call_prepare, context.location(), repository)
        })
    }

    fn delete_tag<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        tag: &'a str,
        expected: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let expected = expected.map(Digest::to_string);
            asking!(
                self,
                self.removal()?,
                at(&context),
                call_delete_tag,
                context.location(),
                repository,
                tag,
                expected.as_deref()
            )
        })
    }

    fn delete_manifest<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let digest = digest.to_string();
            asking!(
                self,
                self.removal()?,
                at(&context),
                call_delete_manifest,
                context.location(),
                repository,
                &digest
            )
        })
    }

    fn finish<'a>(&'a self, context: Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let alone = context.files().is_some_and(|files| files.is_archive());
            asking!(self, self.sink()?, at(&context), call_finish, context.location(), alone)
        })
    }
}
