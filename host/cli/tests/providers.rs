//! Auth providers that exchange keys for passwords at a cloud's service.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock};
use support::{
    Ran, World,
    clouds::{basic, is_signed},
    harbor::{decoded, header, with_json},
    memory::{Asked, Held, Memory, Reply, reply},
};

/// `AWS:password` in Base64, as `GetAuthorizationToken` answers it, and the header that comes of it.
const TOKEN: &str = "QVdTOnBhc3N3b3Jk";

fn refused(kind: &str) -> Option<Reply> {
    let body = json!({ "__type": kind, "message": "The security token included in the request is invalid." });
    Some(("400 Bad Request", String::new(), body.to_string().into_bytes()))
}

/// Amazon's registry with its API beside it: `GetAuthorizationToken` of `AmazonEC2ContainerRegistry_V20150921` (ECR API
/// reference), signed with Signature Version 4, and `AssumeRoleWithWebIdentity` of the security token service (STS API
/// reference).
fn amazon(asked: &Asked, _: &Mutex<Held>) -> Option<Reply> {
    if asked.path.starts_with("/v2/") {
        let is_known = header(asked, "authorization") == Some(&format!("Basic {TOKEN}"));
        let challenge =
            "Www-Authenticate: Basic realm=\"https://amazon.example/\",service=\"ecr.amazonaws.com\"\r\n";
        return (!is_known).then(|| ("401 Unauthorized", challenge.to_owned(), b"Not Authorized\n".to_vec()));
    }
    if let Some(answer) = identity_of_amazon(asked) {
        return Some(answer);
    }
    assert_eq!((asked.method, asked.path), ("POST", "/"));
    if header(asked, "content-type") == Some("application/x-www-form-urlencoded") {
        let body = String::from_utf8_lossy(asked.body);
        assert_eq!(
            body,
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=dray\
             &RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fsync&WebIdentityToken=an.identity"
        );
        let body = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
            <SessionToken>session</SessionToken><SecretAccessKey>secret</SecretAccessKey><AccessKeyId>AKID</AccessKeyId>\
            </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        return Some(("200 OK", "Content-Type: text/xml\r\n".into(), body.into()));
    }
    assert_eq!(header(asked, "content-type"), Some("application/x-amz-json-1.1"));
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    assert_eq!(header(asked, "x-amz-target"), Some(target));
    assert!(serde_json::from_slice::<Value>(asked.body).unwrap().is_object());
    if let Some(session) = header(asked, "x-amz-security-token") {
        assert_eq!(session, "session");
    }
    if !["very-secret", "y", "secret"].iter().any(|secret| is_signed(asked, secret)) {
        return refused("UnrecognizedClientException");
    }
    let body = json!({ "authorizationData": [{ "authorizationToken": TOKEN, "expiresAt": 4_102_444_800.5_f64,
        "proxyEndpoint": "https://1.dkr.ecr.eu-west-1.amazonaws.com" }] });
    Some(("200 OK", "Content-Type: application/x-amz-json-1.1\r\n".into(), body.to_string().into_bytes()))
}

/// What tells a machine (Amazon EC2, "Retrieve security credentials", IMDSv2) and a container (Amazon ECS, EKS Pod Identity)
/// its keys.
fn identity_of_amazon(asked: &Asked) -> Option<Reply> {
    let keys = || {
        let keys = json!({ "Code": "Success", "AccessKeyId": "AKID", "SecretAccessKey": "secret", "Token": "session",
            "Expiration": "2100-01-01T00:00:00Z" });
        with_json("200 OK", &keys)
    };
    let roles = "/latest/meta-data/iam/security-credentials/";
    match (asked.method, asked.path) {
        ("PUT", "/latest/api/token") => {
            assert!(header(asked, "x-aws-ec2-metadata-token-ttl-seconds").is_some());
            Some(("200 OK", String::new(), b"a-session".to_vec()))
        }
        ("GET", path) if path.starts_with(roles) => {
            if header(asked, "x-aws-ec2-metadata-token") != Some("a-session") {
                return reply("401 Unauthorized");
            }
            match &path[roles.len()..] {
                "" => Some(("200 OK", String::new(), b"sync-role".to_vec())),
                "sync-role" => keys(),
                _ => reply("404 Not Found"),
            }
        }
        ("GET", "/credentials/1") => keys(),
        _ => None,
    }
}

fn policy(world: &World, host: &str, more: &str) {
    let auth = format!(
        "auth = {{ provider = \"ecr\", registry = \"{host}\", region = \"eu-west-1\", endpoint = \"{host}\"{more} }}"
    );
    let rule = format!("[[rule]]\nfrom = \"docker://{host}/app\"\nto = \"oci:copy\"\n");
    world.write("dray.toml", &format!("version = 1\n[registry.\"{host}\"]\n{auth}\n{rule}"));
}

fn exchanges(registry: &Memory) -> usize {
    registry.count("POST /")
}

#[test]
fn keys_are_exchanged_for_a_password_of_amazons_registry() {
    let world = World::new();
    let registry = Memory::odd(amazon);
    for tag in ["1", "2", "3"] {
        registry.image("app", tag, tag.as_bytes());
    }
    let keys = |world: &World, id: &str| {
        let mut command = world.command(&["sync"]);
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", "very-secret");
        Ran::of(&mut command)
    };
    policy(&world, registry.host(), "");
    let synced = keys(&world, "AKID").ok();
    assert!(synced.out.contains("3 images copied"), "{}", synced.out);
    // One password serves the whole run.
    assert_eq!(exchanges(&registry), 1);
    let wrong = keys(&world, "SOMEBODY");
    assert!(wrong.code == 1, "{}", wrong.out);
    assert!(wrong.err.contains("UnrecognizedClientException"), "{}", wrong.err);
    assert!(!wrong.err.contains("very-secret"), "{}", wrong.err);
    let without = world.dray(&["sync"]);
    assert!(without.code == 1 && without.err.contains("set AWS_ACCESS_KEY_ID"), "{}", without.err);

    // A file of Amazon's own tools, with a profile.
    world.write(
        "credentials",
        "[default]\naws_access_key_id = SOMEBODY\naws_secret_access_key = x\n[sync]\naws_access_key_id = AKID\naws_secret_access_key = y\n",
    );
    policy(&world, registry.host(), ", credentials-file = \"file:credentials\", profile = \"sync\"");
    world.dray(&["sync"]).ok();
    policy(&world, registry.host(), ", credentials-file = \"file:credentials\", profile = \"none\"");
    let none = world.dray(&["sync"]);
    assert!(none.code == 1 && none.err.contains("has no keys in its section [none]"), "{}", none.err);

    // A token of another identity, as in a pod with a role.
    world.write("identity", "an.identity\n");
    let role = ", web-identity-token = \"file:identity\", role-arn = \"arn:aws:iam::1:role/sync\"";
    policy(&world, registry.host(), &format!("{role}, sts-endpoint = \"{}\"", registry.host()));
    world.dray(&["sync"]).ok();
}

#[test]
fn a_machine_and_a_container_use_their_own_roles() {
    let world = World::new();
    let registry = Memory::odd(amazon);
    registry.image("app", "1", b"one");
    let host = registry.host();
    policy(&world, host, &format!(", identity = \"instance\", metadata-endpoint = \"{host}\""));
    // Keys of the environment are of somebody else.
    let mut command = world.command(&["sync"]);
    let ran = Ran::of(command.env("AWS_ACCESS_KEY_ID", "SOMEBODY").env("AWS_SECRET_ACCESS_KEY", "x")).ok();
    assert!(ran.out.contains("1 image copied"), "{}", ran.out);
    assert_eq!(registry.count("PUT /latest/api/token"), 1);
    policy(&world, host, &format!(", identity = \"container\", metadata-endpoint = \"{host}\""));
    let mut command = world.command(&["sync"]);
    Ran::of(command.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/credentials/1")).ok();
    // What the environment names must be a place that tells keys.
    policy(&world, host, ", identity = \"container\"");
    let mut command = world.command(&["sync"]);
    let ran = Ran::of(command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/keys"));
    assert!(ran.code == 1 && ran.err.contains("evil.example is no place that tells"), "{}", ran.err);
}

/// Runs a sync of one image from a registry with this table, and these variables.
fn once(registry: &Memory, world: &World, auth: &str, environment: &[(&str, &str)]) -> Ran {
    let host = registry.host();
    registry.image("project/images/app", "1", b"one");
    let rule = format!("[[rule]]\nfrom = \"docker://{host}/project/images/app\"\nto = \"oci:copy\"\n");
    world.write("dray.toml", &format!("version = 1\n[registry.\"{host}\"]\nauth = {auth}\n{rule}"));
    let mut command = world.command(&["sync"]);
    Ran::of(command.envs(environment.iter().copied()))
}

/// Google's registry, which takes the access token `ya29.token` as a password, and the servers that give such tokens.
/// `assertion` keeps the last one of a service account.
fn google(assertion: Arc<Mutex<String>>) -> Memory {
    Memory::odd(move |asked, _| {
        let body = decoded(&String::from_utf8_lossy(asked.body));
        let token = || {
            with_json(
                "200 OK",
                &json!({ "access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer" }),
            )
        };
        match (asked.method, asked.path) {
            (_, path) if path.starts_with("/v2/") => {
                let is_known =
                    header(asked, "authorization") == Some(&basic("oauth2accesstoken", "ya29.token"));
                let challenge = "Www-Authenticate: Basic realm=\"google\"\r\n".to_owned();
                (!is_known).then(|| ("401 Unauthorized", challenge, Vec::new()))
            }
            ("POST", "/token") if body.starts_with("grant_type=refresh_token") => {
                assert_eq!(body, "grant_type=refresh_token&client_id=id&client_secret=s&refresh_token=r");
                token()
            }
            ("POST", "/token") => {
                let prefix = "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=";
                *assertion.lock().unwrap() = body.strip_prefix(prefix).unwrap().to_owned();
                token()
            }
            ("POST", "/v1/token") => {
                assert!(
                    body.contains(
                        "subject_token=an.identity&subject_token_type=urn:ietf:params:oauth:token-type:jwt"
                    ),
                    "{body}"
                );
                assert!(body.contains("audience=//iam.googleapis.com/projects/1/x"), "{body}");
                with_json("200 OK", &json!({ "access_token": "federated", "expires_in": 3599 }))
            }
            ("POST", "/v1/projects/-/serviceAccounts/sync@p:generateAccessToken") => {
                assert_eq!(header(asked, "authorization"), Some("Bearer federated"));
                let answer = json!({ "accessToken": "ya29.token", "expireTime": "2100-01-01T00:00:00Z" });
                with_json("200 OK", &answer)
            }
            ("GET", "/computeMetadata/v1/instance/service-accounts/default/token") => {
                assert_eq!(header(asked, "metadata-flavor"), Some("Google"));
                token()
            }
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn googles_registries_take_keys_and_identities() {
    let world = World::new();
    let assertion = Arc::default();
    let registry = google(Arc::clone(&assertion));
    let host = registry.host().to_owned();
    let named = format!("provider = \"gar\", registry = \"{host}\", token-endpoint = \"{host}\"");
    world.tool("openssl", &["genpkey", "-algorithm", "RSA", "-out", "key.pem"]);
    let key = std::fs::read_to_string(world.path("key.pem")).unwrap();
    let account = json!({ "type": "service_account", "client_email": "sync@p", "private_key": key, "private_key_id": "k1",
        "token_uri": "https://oauth2.googleapis.com/token", "project_id": "p" });
    world.write("account.json", &account.to_string());
    once(&registry, &world, &format!("{{ {named}, key = \"file:account.json\" }}"), &[]).ok();
    // Another tool says that the assertion is signed by the key.
    let text = assertion.lock().unwrap().clone();
    let (signed, signature) = text.rsplit_once('.').unwrap();
    world.write("signed", signed);
    std::fs::write(world.path("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    world.tool("openssl", &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    world.tool("openssl", &["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"]);
    let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        (claims["iss"].as_str(), claims["aud"].as_str()),
        (Some("sync@p"), Some("https://oauth2.googleapis.com/token"))
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);

    let user =
        json!({ "type": "authorized_user", "client_id": "id", "client_secret": "s", "refresh_token": "r" });
    world.write("user.json", &user.to_string());
    once(&registry, &world, &format!("{{ {named}, key = \"file:user.json\" }}"), &[]).ok();

    let federated = json!({ "type": "external_account", "audience": "//iam.googleapis.com/projects/1/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/sync@p:generateAccessToken" });
    world.write("federated.json", &federated.to_string());
    world.write("identity", "an.identity\n");
    let auth = format!("{{ {named}, key = \"file:federated.json\", subject-token = \"file:identity\" }}");
    once(&registry, &world, &auth, &[]).ok();
    let lacking = once(&registry, &world, &format!("{{ {named}, key = \"file:federated.json\" }}"), &[]);
    assert!(lacking.code == 1 && lacking.err.contains("subject-token: is needed"), "{}", lacking.err);

    let auth = format!("{{ {named}, identity = \"instance\", metadata-endpoint = \"{host}\" }}");
    once(&registry, &world, &auth, &[]).ok();
    once(&registry, &world, &format!("{{ {named} }}"), &[("CLOUDSDK_AUTH_ACCESS_TOKEN", "ya29.token")]).ok();
    // A key that is none is not shown.
    world.write("odd.json", "{\"type\":\"service_account\",\"private_key\":\"hunter2\"}");
    let odd = once(&registry, &world, &format!("{{ {named}, key = \"file:odd.json\" }}"), &[]);
    assert!(odd.code == 1 && odd.err.contains("is no file of credentials"), "{}", odd.err);
    assert!(!odd.err.contains("hunter2"), "{}", odd.err);
}

#[test]
fn azures_registries_exchange_tokens_of_the_directory() {
    // Azure/acr, `docs/AAD-OAuth.md`; Microsoft identity platform, "client credentials"; "managed identities on a VM".
    let world = World::new();
    let own: Arc<OnceLock<String>> = Arc::default();
    let registry = {
        let own = own.clone();
        Memory::odd(move |asked, _| {
            let host = own.get().unwrap();
            let body = decoded(&String::from_utf8_lossy(asked.body));
            match (asked.method, asked.path) {
                ("POST", "/a-tenant/oauth2/v2.0/token") => {
                    let scope = "scope=https://containerregistry.azure.net/.default";
                    assert!(
                        body.starts_with(&format!(
                            "grant_type=client_credentials&client_id=a-client&{scope}&"
                        )),
                        "{body}"
                    );
                    let is_known = body.ends_with("&client_secret=very-secret")
                        || body.ends_with("client-assertion-type:jwt-bearer&client_assertion=an.identity");
                    match is_known {
                        true => with_json(
                            "200 OK",
                            &json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": "aad" }),
                        ),
                        false => with_json(
                            "401 Unauthorized",
                            &json!({ "error": "invalid_client", "error_description": body }),
                        ),
                    }
                }
                ("GET", path) if path.starts_with("/metadata/identity/oauth2/token?") => {
                    assert_eq!(header(asked, "metadata"), Some("true"));
                    assert!(
                        decoded(path)
                            .ends_with("api-version=2018-02-01&resource=https://containerregistry.azure.net")
                    );
                    with_json(
                        "200 OK",
                        &json!({ "access_token": "aad", "expires_in": "86399", "token_type": "Bearer" }),
                    )
                }
                ("POST", "/oauth2/exchange") => {
                    assert!(body.starts_with(&format!("grant_type=access_token&service={host}")), "{body}");
                    assert!(body.ends_with("&access_token=aad"), "{body}");
                    with_json("200 OK", &json!({ "refresh_token": "refresh" }))
                }
                ("POST", "/oauth2/token") => {
                    assert!(
                        body.contains("grant_type=refresh_token") && body.contains("refresh_token=refresh"),
                        "{body}"
                    );
                    with_json("200 OK", &json!({ "access_token": "registry" }))
                }
                _ if header(asked, "authorization") == Some("Bearer registry") => None,
                _ => {
                    let challenge = format!(
                        "Www-Authenticate: Bearer realm=\"http://{host}/oauth2/token\",service=\"{host}\"\r\n"
                    );
                    Some(("401 Unauthorized", challenge, Vec::new()))
                }
            }
        })
    };
    let host = registry.host().to_owned();
    own.set(host.clone()).unwrap();
    let named = format!("provider = \"acr\", registry = \"{host}\", authority = \"{host}\"");
    let principal = [
        ("AZURE_TENANT_ID", "a-tenant"),
        ("AZURE_CLIENT_ID", "a-client"),
        ("AZURE_CLIENT_SECRET", "very-secret"),
    ];
    once(&registry, &world, &format!("{{ {named} }}"), &principal).ok();
    assert_eq!(registry.count("POST /oauth2/exchange"), 1);
    world.write("identity", "an.identity\n");
    let written = "tenant = \"a-tenant\", client-id = \"a-client\", federated-token = \"file:identity\"";
    once(&registry, &world, &format!("{{ {named}, {written} }}"), &[]).ok();
    let machine = format!("identity = \"instance\", metadata-endpoint = \"{host}\"");
    once(&registry, &world, &format!("{{ {named}, {machine} }}"), &[]).ok();
    let wrong =
        [("AZURE_TENANT_ID", "a-tenant"), ("AZURE_CLIENT_ID", "a-client"), ("AZURE_CLIENT_SECRET", "wrong")];
    let refused = once(&registry, &world, &format!("{{ {named} }}"), &wrong);
    assert!(refused.code == 1 && refused.err.contains("answered 401: invalid_client"), "{}", refused.err);
    let lacking = once(&registry, &world, &format!("{{ {named} }}"), &[]);
    assert!(lacking.code == 1 && lacking.err.contains("AZURE_TENANT_ID"), "{}", lacking.err);
}

#[test]
fn a_job_of_gitlab_has_its_own_login_for_its_own_registry() {
    let world = World::new();
    let registry = Memory::odd(|asked, _| {
        let known = [basic("gitlab-ci-token", "job"), basic("deploy", "token"), basic("me", "glpat")];
        let is_known = header(asked, "authorization").is_some_and(|sent| known.iter().any(|one| one == sent));
        let challenge = "Www-Authenticate: Basic realm=\"gitlab\"\r\n".to_owned();
        (!is_known).then(|| ("401 Unauthorized", challenge, Vec::new()))
    });
    let host = registry.host().to_owned();
    let job = [
        ("CI_REGISTRY", host.as_str()),
        ("CI_REGISTRY_USER", "gitlab-ci-token"),
        ("CI_REGISTRY_PASSWORD", "job"),
    ];
    once(&registry, &world, "{ provider = \"gitlab\" }", &job).ok();
    let sent = |user: &str, password: &str| {
        registry.heads().iter().filter(|head| head.contains(&basic(user, password))).count()
    };
    assert!(sent("gitlab-ci-token", "job") > 0);
    let deploy = [job[0], job[1], job[2], ("CI_DEPLOY_USER", "deploy"), ("CI_DEPLOY_PASSWORD", "token")];
    once(&registry, &world, "{ provider = \"gitlab\" }", &deploy).ok();
    assert!(sent("deploy", "token") > 0);
    let named = format!(
        "{{ provider = \"gitlab\", registry = \"{host}\", username = \"me\", password = \"env:PAT\" }}"
    );
    once(&registry, &world, &named, &[("PAT", "glpat")]).ok();
    assert!(sent("me", "glpat") > 0);
    // The token of a job goes to no other registry.
    let before = registry.heads().len();
    let other = [("CI_REGISTRY", "registry.example.com"), job[1], job[2]];
    let ran = once(&registry, &world, "{ provider = \"gitlab\" }", &other);
    assert!(ran.code == 1 && ran.err.contains("know no credentials"), "{}", ran.err);
    assert!(registry.heads()[before..].iter().all(|head| !head.contains("authorization")));
}

#[test]
fn a_provider_asks_no_host_that_nobody_named_and_takes_its_keys_nowhere_else() {
    let world = World::new();
    let elsewhere = Arc::new(Memory::odd(amazon));
    let led = {
        let to = elsewhere.host().to_owned();
        Memory::odd(move |asked, _| match asked.method {
            "POST" => Some(("307 Temporary Redirect", format!("Location: http://{to}/\r\n"), Vec::new())),
            _ => Some(("401 Unauthorized", "Www-Authenticate: Basic realm=\"r\"\r\n".into(), Vec::new())),
        })
    };
    policy(&world, led.host(), "");
    let mut command = world.command(&["sync"]);
    let ran = Ran::of(command.env("AWS_ACCESS_KEY_ID", "AKID").env("AWS_SECRET_ACCESS_KEY", "very-secret"));
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert_eq!(elsewhere.asked(), [""; 0]);
}

#[test]
fn a_place_that_never_asks_for_a_login_gets_one_with_each_request() {
    let world = World::new();
    // A store that refuses who sends nothing, and does not say how to log in.
    let store = Memory::odd(|asked, _| {
        let is_known = header(asked, "authorization") == Some("Bearer a-token");
        (!is_known).then(|| ("403 Forbidden", String::new(), b"AccessDenied".to_vec()))
    });
    let without = once(&store, &world, "{ token = \"env:TOKEN\" }", &[("TOKEN", "a-token")]);
    assert!(without.code == 1 && without.err.contains("AccessDenied"), "{}", without.err);
    assert!(store.heads().iter().all(|head| !head.contains("authorization")));
    let before = store.heads().len();
    let always = "{ token = \"env:TOKEN\", when = \"always\" }";
    let ran = once(&store, &world, always, &[("TOKEN", "a-token")]).ok();
    assert!(ran.out.contains("1 image copied"), "{}", ran.out);
    assert!(store.heads()[before..].iter().all(|head| head.contains("authorization: Bearer a-token")));
    let unknown =
        once(&store, &world, "{ token = \"env:TOKEN\", when = \"often\" }", &[("TOKEN", "a-token")]);
    assert!(unknown.code == 2 && unknown.err.contains("always"), "{}", unknown.err);
}

#[test]
fn what_a_registry_refuses_is_asked_for_anew_once_and_never_sent_twice() {
    let world = World::new();
    let registry = Memory::odd(|asked, _| {
        let is_known = header(asked, "authorization").is_some_and(|sent| sent == basic("me", "second"));
        let challenge = "Www-Authenticate: Basic realm=\"r\"\r\n".to_owned();
        (!is_known).then(|| ("401 Unauthorized", challenge, Vec::new()))
    });
    let host = registry.host();
    registry.image("app", "1", b"one");
    let rule = format!("[[rule]]\nfrom = \"docker://{host}/app\"\nto = \"oci:copy\"\n");
    world.write("dray.toml", &format!("version = 1\n{rule}"));
    world.write("auth.json", &format!("{{\"credHelpers\": {{\"{host}\": \"turns\"}}}}"));
    // A helper whose password changes each time, and one that has only a wrong one.
    let helper = |passwords: &str| {
        let script = format!(
            "#!/bin/sh\nread server\necho x >> {0}/called\nset -- {passwords}\nn=$(wc -l < {0}/called)\n\
             [ $n -gt $# ] && n=$#\nshift $((n - 1))\necho \"{{\\\"Username\\\":\\\"me\\\",\\\"Secret\\\":\\\"$1\\\"}}\"\n",
            world.path("").display()
        );
        let program = world.write("bin/docker-credential-turns", &script);
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let _ = std::fs::remove_file(world.path("called"));
        let before = registry.heads().len();
        let mut command = world.command(&["sync"]);
        let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
        let ran = Ran::of(command.env("PATH", path).env("REGISTRY_AUTH_FILE", world.path("auth.json")));
        let heads = registry.heads()[before..].to_vec();
        let sent =
            move |password: &str| heads.iter().filter(|head| head.contains(&basic("me", password))).count();
        let called = std::fs::read_to_string(world.path("called"))
            .unwrap_or_else(|_| panic!("{}", ran.err))
            .lines()
            .count();
        (ran, sent, called)
    };
    let (ran, sent, called) = helper("first second");
    assert!(ran.ok().out.contains("1 image copied"));
    assert_eq!((sent("first"), called), (1, 2));
    let (ran, sent, called) = helper("wrong");
    assert!(ran.code == 1 && ran.err.contains("refused the credentials"), "{}", ran.err);
    assert_eq!((sent("wrong"), called), (1, 2));
}
