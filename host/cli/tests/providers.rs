//! Auth providers that exchange keys for passwords at a cloud's service.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::{
    Ran, World,
    memory::{Asked, Held, Memory, Reply},
};

/// `AWS:password` in Base64, as `GetAuthorizationToken` answers it, and the header that comes of it.
const TOKEN: &str = "QVdTOnBhc3N3b3Jk";

/// A header of a request.
fn header<'a>(asked: &Asked<'a>, wanted: &str) -> Option<&'a str> {
    let headers = asked.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    headers.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
}

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
    let date = header(asked, "x-amz-date").unwrap();
    let authorization = header(asked, "authorization").unwrap();
    let scope = format!("Credential=AKID/{}/eu-west-1/ecr/aws4_request", &date[..8]);
    let session = match header(asked, "x-amz-security-token") {
        Some(session) => {
            assert_eq!(session, "session");
            "x-amz-security-token;"
        }
        None => "",
    };
    let signed = format!("SignedHeaders=content-type;host;x-amz-date;{session}x-amz-target");
    if !authorization.starts_with("AWS4-HMAC-SHA256 ") || !authorization.contains(&scope) {
        return refused("UnrecognizedClientException");
    }
    assert!(authorization.contains(&signed), "{authorization}");
    let body = json!({ "authorizationData": [{ "authorizationToken": TOKEN, "expiresAt": 4_102_444_800.5_f64,
        "proxyEndpoint": "https://1.dkr.ecr.eu-west-1.amazonaws.com" }] });
    Some(("200 OK", "Content-Type: application/x-amz-json-1.1\r\n".into(), body.to_string().into_bytes()))
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
