//! Adapts dialects to the engine.

use crate::{adapt::calling, bindings::guest, convert, load::Loaded, state::Scope};
use dray_core::Digest;
use dray_engine::{
    Error, Kind, Result,
    contract::{
        Context, Dialect, Known, KnownBy, KnownTag, Offers, Page, ScanReport, TagPage, UntaggedManifest,
    },
};
use futures_core::future::BoxFuture;
use std::sync::Arc;

/// How the dialects that are built in are recognised, so that none is loaded in vain: name, globs of hosts, services. A test
/// compares it with what they say themselves.
pub(crate) const KINDS: [(&str, &[&str], &[&str]); 15] = [
    ("harbor", &[], &["harbor-registry"]),
    ("quay", &["quay.io"], &[]),
    ("docker-hub", &["docker.io", "index.docker.io", "registry-1.docker.io"], &[]),
    ("zot", &[], &["zot"]),
    ("acr", &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"], &[]),
    ("gitlab", &["registry.gitlab.com"], &["container_registry"]),
    (
        "ecr",
        &["*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr-fips.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.cn"],
        &[],
    ),
    ("gar", &["*-docker.pkg.dev", "gcr.io", "*.gcr.io"], &[]),
    ("ghcr", &["ghcr.io"], &[]),
    ("artifactory", &["*.jfrog.io"], &[]),
    ("nexus", &[], &[]),
    ("ali-acr", &["*-registry.*.cr.aliyuncs.com", "*-registry-vpc.*.cr.aliyuncs.com"], &[]),
    ("huawei-swr", &["swr.*.myhuaweicloud.com", "swr.*.myhuaweicloud.eu"], &[]),
    ("tencent-tcr", &["*.tencentcloudcr.com"], &[]),
    ("volcengine-cr", &["*.cr.volces.com", "*.cr.ivolces.com"], &[]),
];

/// Whether a kind with these hosts and services is the one that is looked for.
pub(crate) fn is_known<S: AsRef<str>>(by: KnownBy<'_>, name: &str, hosts: &[S], services: &[S]) -> bool {
    let matches = |glob: &S, host: &str| dray_core::matches(glob.as_ref(), host);
    match by {
        KnownBy::Kind(kind) => kind == name,
        KnownBy::Host(host) => hosts.iter().any(|glob| matches(glob, host)),
        KnownBy::Service(service) => services.iter().any(|known| known.as_ref() == service),
    }
}

pub(crate) struct WasmDialect {
    plugin: Arc<Loaded>,
    indices: guest::registry_dialect::GuestIndices,
    /// `None` means that it tells nothing of images.
    knowledge: Option<guest::registry_knowledge::GuestIndices>,
    /// `None` means that it does not list what has no tag.
    untagged: Option<guest::registry_untagged::GuestIndices>,
    kind: guest::registry_dialect::Kind,
}

impl WasmDialect {
    pub async fn new(plugin: Arc<Loaded>) -> Result<Self> {
        let failed = |error: wasmtime::Error| plugin.unfit(&error);
        let indices = guest::registry_dialect::GuestIndices::new(&plugin.pre).map_err(failed)?;
        let (mut store, instance) = plugin.instance(Scope::default()).await?;
        let described = async { indices.load(&mut store, &instance)?.call_describe_kind(&mut store).await };
        let kind = described.await.map_err(|error| plugin.trapped("describe-kind", error))?;
        let knowledge = guest::registry_knowledge::GuestIndices::new(&plugin.pre).ok();
        let untagged = guest::registry_untagged::GuestIndices::new(&plugin.pre).ok();
        Ok(WasmDialect { plugin, indices, knowledge, untagged, kind })
    }

    /// What it tells of images, or the error for a dialect that tells nothing.
    fn knowing(&self) -> Result<&guest::registry_knowledge::GuestIndices> {
        let nothing = || Error::new(Kind::Unsupported, format!("know images: {} does not", self.plugin.name));
        self.knowledge.as_ref().ok_or_else(nothing)
    }

    /// Whether it is the one that is looked for.
    pub fn is(&self, by: KnownBy<'_>) -> bool {
        is_known(by, &self.plugin.name, &self.kind.hosts, &self.kind.services)
    }
}

fn at(context: &Context) -> Scope {
    Scope { context: Some(context.clone()), ..Scope::default() }
}

impl Dialect for WasmDialect {
    fn name(&self) -> &str {
        &self.plugin.name
    }

    fn offers(&self) -> Offers {
        let kind = &self.kind;
        Offers { lists: kind.lists, whole: kind.whole, prepares: kind.prepares, removes: kind.removes }
    }

    fn tags<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TagPage>> {
        Box::pin(async move {
            let page =
                calling!(self, &self.indices, at(&context), call_tags, context.location(), repository, next)?;
            Ok(convert::tag_page(page))
        })
    }

    fn prepare<'a>(&'a self, context: Context, repository: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            calling!(self, &self.indices, at(&context), call_prepare, context.location(), repository)
        })
    }

    fn remove_tag<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            calling!(self, &self.indices, at(&context), call_remove_tag, context.location(), repository, tag)
        })
    }

    fn know<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<KnownTag>>> {
        Box::pin(async move {
            let knowing = self.knowing()?;
            let page =
                calling!(self, knowing, at(&context), call_know, context.location(), repository, next)?;
            let known = |entry: guest::registry_knowledge::KnownTag| KnownTag {
                name: entry.name,
                digest: entry.digest.parse().ok(),
                known: Known {
                    pushed: entry.pushed,
                    labels: entry.labels,
                    signed: entry.signed,
                    severity: entry.severity,
                },
            };
            Ok(Page { items: page.entries.into_iter().map(known).collect(), next: page.next })
        })
    }

    fn untagged<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<UntaggedManifest>>> {
        Box::pin(async move {
            let nothing = || {
                Error::new(Kind::Unsupported, format!("list what has no tag: {} does not", self.plugin.name))
            };
            let untagged = self.untagged.as_ref().ok_or_else(nothing)?;
            let page =
                calling!(self, untagged, at(&context), call_untagged, context.location(), repository, next)?;
            // What has no digest cannot be deleted.
            let entries = page.entries.into_iter().filter_map(|entry| {
                Some(UntaggedManifest { digest: entry.digest.parse().ok()?, pushed: entry.pushed })
            });
            Ok(Page { items: entries.collect(), next: page.next })
        })
    }

    fn scan<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ScanReport>>> {
        Box::pin(async move {
            let (knowing, digest) = (self.knowing()?, digest.to_string());
            let report =
                calling!(self, knowing, at(&context), call_scan, context.location(), repository, &digest)?;
            Ok(report.map(|report| ScanReport { media_type: report.media_type, content: report.content }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Runtime, Secrets, Settings,
        builtin::{BUILTINS, Builtin},
        load::Role,
    };
    use dray_core::policy::SecretRef;
    use std::collections::BTreeMap;

    struct NoSecrets;

    impl Secrets for NoSecrets {
        fn get(&self, _: &SecretRef) -> Result<dray_engine::Secret> {
            Err(Error::new(Kind::NotFound, "find a secret"))
        }

        fn auth_files(&self) -> Result<Vec<(String, dray_engine::Secret)>> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn what_is_known_of_a_kind_is_what_it_says_itself() {
        let runtime =
            Runtime::new(Settings { cache: None, plugins: BTreeMap::new(), secrets: Arc::new(NoSecrets) });
        let dialects = BUILTINS.iter().filter(|builtin| builtin.role == Role::Dialect);
        assert_eq!(dialects.count(), KINDS.len());
        for (name, hosts, services) in KINDS {
            let builtin = Builtin::named(name, Role::Dialect).unwrap();
            let dialect = WasmDialect::new(runtime.builtin(builtin).await.unwrap()).await.unwrap();
            assert_eq!(dialect.kind.hosts, hosts, "{name}");
            assert_eq!(dialect.kind.services, services, "{name}");
        }
    }

    #[test]
    fn a_kind_is_known_by_its_name_its_host_or_its_service() {
        let (hosts, services) = (["*.azurecr.io"], ["harbor-registry"]);
        let known = |by| is_known(by, "name", &hosts, &services);
        assert!(known(KnownBy::Kind("name")) && !known(KnownBy::Kind("other")));
        assert!(known(KnownBy::Host("team.azurecr.io")) && !known(KnownBy::Host("azurecr.io.evil.example")));
        assert!(known(KnownBy::Service("harbor-registry")) && !known(KnownBy::Service("token-service")));
    }
}
