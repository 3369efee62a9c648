//! What the auth providers and the dialects of dray for clouds get without being told: the secrets that every tool of a
//! cloud reads, and the hosts of its own API.

use dray_core::policy::SecretRef;
use serde_json::Value;

/// What one of dray's auth providers gets beside what its table names.
pub(crate) struct Cloud {
    /// The name of the provider.
    pub provider: &'static str,
    /// Secrets that it reads without being told where they lie.
    pub secrets: &'static [&'static str],
    /// Keys of its table that say whose credentials are used. With one of them, it gets none of [`Cloud::secrets`], because
    /// somebody else's keys must not be mixed with those that the table names.
    pub naming: &'static [&'static str],
    /// Keys of its table that name hosts which it asks.
    pub hosts: &'static [&'static str],
    /// Whether a further host is one of the cloud's own, at which it exchanges keys.
    pub may_ask: fn(&str) -> bool,
}

/// The addresses at which clouds tell a machine or a container its own identity, over plain HTTP: Amazon, Google and Azure
/// (instances), Amazon ECS and EKS (containers), and Google's name for its own.
pub const METADATA: [&str; 4] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "metadata.google.internal"];

const CLOUDS: [Cloud; 9] = [
    Cloud {
        provider: "ecr",
        secrets: &[
            "env:AWS_ACCESS_KEY_ID",
            "env:AWS_SECRET_ACCESS_KEY",
            "env:AWS_SESSION_TOKEN",
            "env:AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "env:AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "file:/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
        ],
        naming: &["access-key-id", "secret-access-key", "credentials-file", "web-identity-token"],
        hosts: &["endpoint", "sts-endpoint", "metadata-endpoint"],
        may_ask: is_amazons,
    },
    Cloud {
        provider: "gar",
        secrets: &["env:CLOUDSDK_AUTH_ACCESS_TOKEN"],
        naming: &["key", "access-token", "identity"],
        hosts: &["registry", "token-endpoint", "metadata-endpoint"],
        may_ask: is_googles,
    },
    Cloud {
        provider: "acr",
        secrets: &[
            "env:AZURE_TENANT_ID",
            "env:AZURE_CLIENT_ID",
            "env:AZURE_CLIENT_SECRET",
            "file:/var/run/secrets/azure/tokens/azure-identity-token",
        ],
        // Of these, one may be named and the others taken from the environment.
        naming: &["identity"],
        hosts: &["registry", "authority", "metadata-endpoint"],
        may_ask: is_azures,
    },
    Cloud {
        provider: "docker-hub",
        secrets: &["env:DOCKERHUB_USERNAME", "env:DOCKERHUB_TOKEN"],
        naming: &["username", "password", "credentials"],
        hosts: &["endpoint"],
        may_ask: |host| host == "hub.docker.com",
    },
    Cloud {
        provider: "gitlab",
        secrets: &[
            "env:CI_REGISTRY",
            "env:CI_REGISTRY_USER",
            "env:CI_REGISTRY_PASSWORD",
            "env:CI_DEPLOY_USER",
            "env:CI_DEPLOY_PASSWORD",
        ],
        naming: &["username", "password"],
        hosts: &[],
        may_ask: |_| false,
    },
    Cloud {
        provider: "ali-acr",
        secrets: &[
            "env:ALIBABA_CLOUD_ACCESS_KEY_ID",
            "env:ALIBABA_CLOUD_ACCESS_KEY_SECRET",
            "env:ALIBABA_CLOUD_SECURITY_TOKEN",
        ],
        naming: &["access-key-id", "access-key-secret"],
        hosts: &["endpoint"],
        may_ask: |host| between(host, "cr.", ".aliyuncs.com"),
    },
    Cloud {
        provider: "huawei-swr",
        secrets: &["env:HUAWEICLOUD_SDK_AK", "env:HUAWEICLOUD_SDK_SK"],
        naming: &["access-key-id", "secret-access-key"],
        hosts: &["endpoint"],
        may_ask: |_| false,
    },
    Cloud {
        provider: "tencent-tcr",
        secrets: &[
            "env:TENCENTCLOUD_SECRET_ID",
            "env:TENCENTCLOUD_SECRET_KEY",
            "env:TENCENTCLOUD_SESSION_TOKEN",
        ],
        naming: &["secret-id", "secret-key"],
        hosts: &["endpoint"],
        may_ask: |host| host == "tcr.tencentcloudapi.com",
    },
    Cloud {
        provider: "volcengine-cr",
        secrets: &["env:VOLC_ACCESSKEY", "env:VOLC_SECRETKEY", "env:VOLC_SESSION_TOKEN"],
        naming: &["access-key-id", "secret-access-key"],
        hosts: &["endpoint"],
        may_ask: |host| between(host, "cr.", ".volcengineapi.com"),
    },
];

impl Cloud {
    /// The cloud of a built-in provider. `None` means that the provider gets only what its table names.
    pub fn of(provider: &str) -> Option<&'static Cloud> {
        CLOUDS.iter().find(|cloud| cloud.provider == provider)
    }

    /// The secrets that the provider gets with this table beside those that the table names.
    pub fn secrets(&self, config: &Value) -> impl Iterator<Item = SecretRef> {
        let named = self.naming.iter().any(|key| config.get(key).is_some());
        self.secrets.iter().filter(move |_| !named).filter_map(|name| name.parse().ok())
    }

    /// The hosts that its table names.
    pub fn hosts(&self, config: &Value) -> impl Iterator<Item = String> {
        self.hosts.iter().filter_map(|key| config.get(key)?.as_str().map(str::to_owned))
    }
}

/// Whether a host is one at which Amazon exchanges keys. Other names in the same domain are of its customers.
fn is_amazons(host: &str) -> bool {
    let is_services =
        |start: &&str| [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|end| between(host, start, end));
    METADATA[..3].contains(&host)
        || host == "sts.amazonaws.com"
        || ["api.ecr.", "api.ecr-public.", "ecr-fips.", "sts."].iter().any(is_services)
}

/// Whether a host is one component, such as a region, between a beginning and an end.
fn between(host: &str, start: &str, end: &str) -> bool {
    let middle = host.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    middle.is_some_and(|middle| !middle.is_empty() && !middle.contains('.'))
}

/// Whether a host is one at which Google exchanges keys, or tells a machine its identity.
fn is_googles(host: &str) -> bool {
    [
        "oauth2.googleapis.com",
        "sts.googleapis.com",
        "iamcredentials.googleapis.com",
        "metadata.google.internal",
    ]
    .contains(&host)
}

/// Whether a host is one at which Azure's directory gives tokens, or tells a machine its identity, or exchanges tokens for its
/// own: a registry.
fn is_azures(host: &str) -> bool {
    let directories = ["login.microsoftonline.com", "login.microsoftonline.us", "login.chinacloudapi.cn"];
    directories.contains(&host)
        || host == METADATA[0]
        || ["io", "cn", "us"].iter().any(|end| between(host, "", &format!(".azurecr.{end}")))
}

/// Whether a host is that of a registry's own API, where it is not the registry itself.
pub(crate) fn api_of(registry: &str, host: &str) -> bool {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => return host == "hub.docker.com",
        "ghcr.io" => return host == "api.github.com",
        "gcr.io" => return host == "containeranalysis.googleapis.com",
        _ => {}
    }
    let amazon = || {
        let (_, rest) = registry.split_once(".dkr.ecr")?;
        Some(match rest.strip_prefix("-fips.") {
            Some(rest) => format!("ecr-fips.{rest}"),
            None => format!("api.ecr.{}", rest.strip_prefix('.')?),
        })
    };
    let volcengine = || {
        let name =
            registry.strip_suffix(".cr.volces.com").or_else(|| registry.strip_suffix(".cr.ivolces.com"))?;
        Some(format!("cr.{}.volcengineapi.com", &name[name.rfind("-cn-")? + 1..]))
    };
    let google = ["artifactregistry.googleapis.com", "containeranalysis.googleapis.com"];
    let huawei = || {
        let is_theirs = registry.ends_with(".myhuaweicloud.com") || registry.ends_with(".myhuaweicloud.eu");
        Some(format!("swr-api.{}", registry.strip_prefix("swr.").filter(|_| is_theirs)?))
    };
    is_amazons(host) && amazon().as_deref() == Some(host)
        || registry.ends_with("-docker.pkg.dev") && google.contains(&host)
        || registry.ends_with(".gcr.io") && host == google[1]
        || registry.ends_with(".cr.aliyuncs.com") && between(host, "cr.", ".aliyuncs.com")
        || registry.ends_with(".tencentcloudcr.com") && host == "tcr.tencentcloudapi.com"
        || huawei().as_deref() == Some(host)
        || volcengine().as_deref() == Some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_asks_the_hosts_of_its_cloud_only() {
        let amazon = Cloud::of("ecr").unwrap();
        for (host, allowed) in [
            ("sts.eu-west-1.amazonaws.com", true),
            ("api.ecr.cn-north-1.amazonaws.com.cn", true),
            ("sts.amazonaws.com", true),
            ("169.254.169.254", true),
            ("bucket.s3.amazonaws.com", false),
            ("sts.x.s3.amazonaws.com", false),
            ("api.ecr.x.s3.amazonaws.com", false),
            ("amazonaws.com", false),
            ("sts.evilamazonaws.com", false),
            ("sts.amazonaws.com.evil.example", false),
            ("", false),
        ] {
            assert_eq!((amazon.may_ask)(host), allowed, "{host}");
        }
        assert!(Cloud::of("static").is_none());
    }

    #[test]
    fn keys_that_a_table_names_are_not_mixed_with_others() {
        let amazon = Cloud::of("ecr").unwrap();
        assert!(amazon.secrets(&serde_json::json!({ "region": "eu-west-1" })).count() > 2);
        assert_eq!(amazon.secrets(&serde_json::json!({ "credentials-file": "file:x" })).count(), 0);
        let hosts: Vec<String> =
            amazon.hosts(&serde_json::json!({ "endpoint": "a", "region": "b" })).collect();
        assert_eq!(hosts, ["a"]);
    }

    #[test]
    fn an_api_belongs_to_its_registry() {
        for (registry, host, belongs) in [
            ("docker.io", "hub.docker.com", true),
            ("registry.example.com", "hub.docker.com", false),
            ("ghcr.io", "api.github.com", true),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "api.ecr.eu-west-1.amazonaws.com", true),
            ("1.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "ecr-fips.us-gov-west-1.amazonaws.com", true),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "api.ecr.us-east-1.amazonaws.com", false),
            ("1.dkr.ecr.evil.example", "api.ecr.evil.example", false),
            ("1.dkr.ecr.x.s3.amazonaws.com", "api.ecr.x.s3.amazonaws.com", false),
            ("europe-docker.pkg.dev", "artifactregistry.googleapis.com", true),
            ("evil.example", "artifactregistry.googleapis.com", false),
            ("swr.cn-north-4.myhuaweicloud.com", "swr-api.cn-north-4.myhuaweicloud.com", true),
            ("swr.evil.example", "swr-api.evil.example", false),
            ("team-registry.cn-hangzhou.cr.aliyuncs.com", "cr.cn-hangzhou.aliyuncs.com", true),
            ("team-registry.cn-hangzhou.cr.aliyuncs.com", "cr.evil.example.aliyuncs.com", false),
            ("team.tencentcloudcr.com", "tcr.tencentcloudapi.com", true),
            ("team-cn-beijing.cr.volces.com", "cr.cn-beijing.volcengineapi.com", true),
            ("team-cn-beijing.cr.volces.com", "cr.cn-shanghai.volcengineapi.com", false),
        ] {
            assert_eq!(api_of(registry, host), belongs, "{registry} {host}");
        }
    }
}
