//! The registry over HTTP, request by request. The whole of the conformance suite of the
//! distribution specification is run apart from these; here is what dray itself leans on.
#![allow(clippy::unwrap_used, reason = "a test")]

use dray_core::Digest;
use dray_registry::{Access, Server, Users};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

struct World {
    base: String,
    client: Client,
    folder: TempDir,
}

async fn world(token: Option<&str>) -> World {
    allowing(Access { token: token.map(str::to_owned), allow_delete: true, ..Access::default() }).await
}

async fn allowing(access: Access) -> World {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind(folder.path(), ([127, 0, 0, 1], 0).into(), access, None).await.unwrap();
    let base = format!("http://{}/v2", server.address());
    tokio::spawn(server.run());
    World { base, client: Client::new(), folder }
}

impl World {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let address = if path.starts_with("/v2/") {
            self.base.replace("/v2", path)
        } else {
            format!("{}/{path}", self.base)
        };
        let mut request = self.client.request(method, address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn push(&self, repository: &str, content: &'static [u8]) -> Digest {
        let digest = Digest::of(content);
        let stored = self
            .ask(Method::POST, &format!("{repository}/blobs/uploads/?digest={digest}"), &[], content)
            .await;
        assert_eq!(stored.status(), StatusCode::CREATED);
        digest
    }

    async fn manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Response {
        let kind = manifest["mediaType"].as_str().unwrap().to_owned();
        self.ask(
            Method::PUT,
            &format!("{repository}/manifests/{reference}"),
            &[("content-type", &kind)],
            manifest.to_string(),
        )
        .await
    }
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn code(response: Response) -> String {
    let document: Value = json_of(response).await;
    document["errors"][0]["code"].as_str().unwrap().to_owned()
}

fn image(config: &Digest, subject: Option<&Digest>) -> Value {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": kind, "artifactType": "application/x", "config": { "mediaType": "application/x", "digest": config, "size": 2 }, "layers": [] });
    if let Some(subject) = subject {
        manifest["subject"] = json!({ "mediaType": kind, "digest": subject, "size": 1 });
    }
    manifest
}

#[tokio::test]
async fn an_upload_in_chunks() {
    let world = world(None).await;
    let begun = world.ask(Method::POST, "a/blobs/uploads/", &[], "").await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let at = header(&begun, "location");
    let first = world.ask(Method::PATCH, &at, &[("content-range", "0-3")], "0123").await;
    assert_eq!((first.status(), header(&first, "range")), (StatusCode::ACCEPTED, "0-3".into()));
    let gap = world.ask(Method::PATCH, &at, &[("content-range", "6-7")], "67").await;
    assert_eq!((gap.status(), header(&gap, "range")), (StatusCode::RANGE_NOT_SATISFIABLE, "0-3".into()));
    let status = world.get(&at).await;
    assert_eq!((status.status(), header(&status, "range")), (StatusCode::NO_CONTENT, "0-3".into()));
    let wrong = world.ask(Method::PUT, &format!("{at}?digest={}", Digest::of(b"x")), &[], "").await;
    assert_eq!(code(wrong).await, "DIGEST_INVALID");
    assert_eq!(world.get(&at).await.status(), StatusCode::NOT_FOUND);

    let at = header(&world.ask(Method::POST, "a/blobs/uploads/", &[], "").await, "location");
    world.ask(Method::PATCH, &at, &[("content-range", "0-3")], "0123").await;
    let digest = Digest::of(b"012345");
    let closed =
        world.ask(Method::PUT, &format!("{at}?digest={digest}"), &[("content-range", "4-5")], "45").await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    let part = world.ask(Method::GET, &format!("a/blobs/{digest}"), &[("range", "bytes=2-3")], "").await;
    assert_eq!(
        (part.status(), header(&part, "content-range")),
        (StatusCode::PARTIAL_CONTENT, "bytes 2-3/6".into())
    );
    assert_eq!(part.text().await.unwrap(), "23");
}

#[tokio::test]
async fn a_blob_is_in_the_repositories_that_have_it() {
    let world = world(None).await;
    let digest = world.push("a", b"blob").await;
    assert_eq!(world.get(&format!("b/blobs/{digest}")).await.status(), StatusCode::NOT_FOUND);
    let mount = |from: &str| format!("b/blobs/uploads/?mount={digest}&from={from}");
    assert_eq!(world.ask(Method::POST, &mount("c"), &[], "").await.status(), StatusCode::ACCEPTED);
    assert_eq!(world.ask(Method::POST, &mount("../a"), &[], "").await.status(), StatusCode::ACCEPTED);
    assert_eq!(world.ask(Method::POST, &mount("a"), &[], "").await.status(), StatusCode::CREATED);
    assert_eq!(world.get(&format!("b/blobs/{digest}")).await.text().await.unwrap(), "blob");
    assert_eq!(
        world.ask(Method::DELETE, &format!("a/blobs/{digest}"), &[], "").await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(world.get(&format!("a/blobs/{digest}")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(world.get(&format!("b/blobs/{digest}")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_tag_never_names_what_is_not_there() {
    let world = world(None).await;
    let missing = world.manifest("a", "v1", &image(&Digest::of(b"{}"), None)).await;
    assert_eq!(code(missing).await, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(world.get("a/tags/list").await.status(), StatusCode::NOT_FOUND);
    let config = world.push("a", b"{}").await;
    for tag in ["v1", "v2", "v3"] {
        assert_eq!(world.manifest("a", tag, &image(&config, None)).await.status(), StatusCode::CREATED);
    }
    let page = world.get("a/tags/list?n=2").await;
    assert_eq!(header(&page, "link"), "</v2/a/tags/list?last=v2&n=2>; rel=\"next\"");
    assert_eq!(json_of(page).await["tags"], json!(["v1", "v2"]));
    let rest = world.get("a/tags/list?n=2&last=v2").await;
    assert_eq!(header(&rest, "link"), "");
    assert_eq!(json_of(rest).await["tags"], json!(["v3"]));
    assert_eq!(json_of(world.get("_catalog").await).await["repositories"], json!(["a"]));
    // Deleted by digest, its tags go with it.
    let digest = header(&world.get("a/manifests/v1").await, "docker-content-digest");
    assert_eq!(world.ask(Method::DELETE, "a/manifests/v3", &[], "").await.status(), StatusCode::ACCEPTED);
    assert_eq!(world.get("a/manifests/v1").await.status(), StatusCode::OK);
    assert_eq!(
        world.ask(Method::DELETE, &format!("a/manifests/{digest}"), &[], "").await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(world.get("a/manifests/v1").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn referrers_are_listed_by_their_subject() {
    let world = world(None).await;
    let config = world.push("a", b"{}").await;
    let subject = Digest::of(b"not even there");
    let pushed = world.manifest("a", "signature", &image(&config, Some(&subject))).await;
    assert_eq!(header(&pushed, "oci-subject"), subject.to_string());
    let listed = world.get(&format!("a/referrers/{subject}?artifactType=application/x")).await;
    assert_eq!(header(&listed, "oci-filters-applied"), "artifactType");
    let listed: Value = json_of(listed).await;
    assert_eq!(listed["manifests"][0]["artifactType"], "application/x");
    let others: Value = json_of(world.get(&format!("a/referrers/{subject}?artifactType=other")).await).await;
    assert_eq!(others["manifests"], json!([]));
}

#[tokio::test]
async fn names_do_not_lead_out_and_strangers_stay_out() {
    let open = world(None).await;
    for path in ["A/blobs/uploads/", "_a/blobs/uploads/"] {
        let raw = open.client.post(format!("{}/{path}", open.base)).send().await.unwrap();
        assert!(raw.status().is_client_error(), "{path}");
    }
    assert_eq!(std::fs::read_dir(open.folder.path()).unwrap().count(), 0);
    let closed = world(Some("secret")).await;
    assert_eq!(closed.get("").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        closed.ask(Method::GET, "", &[("authorization", "Bearer secret")], "").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_is_not_allowed_is_refused() {
    let plain = allowing(Access::default()).await;
    let digest = plain.push("a", b"x").await;
    let deleted = plain.ask(Method::DELETE, &format!("a/blobs/{digest}"), &[], "").await;
    assert_eq!(deleted.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(plain.get(&format!("a/blobs/{digest}")).await.status(), StatusCode::OK);
    let reading = allowing(Access { read_only: true, ..Access::default() }).await;
    assert_eq!(reading.ask(Method::POST, "a/blobs/uploads/", &[], "").await.status(), StatusCode::FORBIDDEN);
    assert!(!reading.folder.path().join("docker").exists());
    let users = Users::parse("bob:$2y$04$zVHmKQtGGQob.b/Nc7l9NO8UlrYcW05FiuCj/SxsFO/ZtiN9.mNzy").unwrap();
    let guarded = allowing(Access { users: Some(users), ..Access::default() }).await;
    let asked = |authorization: &'static str| {
        let guarded = &guarded;
        async move { guarded.ask(Method::GET, "", &[("authorization", authorization)], "").await.status() }
    };
    assert_eq!(asked("Basic !").await, StatusCode::UNAUTHORIZED);
    assert_eq!(asked("Basic Ym9iOndyb25n").await, StatusCode::UNAUTHORIZED);
    let page = plain.ask(Method::GET, "_catalog", &[("origin", "http://evil.example")], "").await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_damaged_blob_is_healed_by_pushing_it_again() {
    let world = world(None).await;
    let digest = world.push("a", b"right").await;
    let hex = digest.hex();
    let path =
        world.folder.path().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data");
    std::fs::write(&path, b"wrong").unwrap();
    world.push("a", b"right").await;
    assert_eq!(std::fs::read(&path).unwrap(), b"right");
}

#[tokio::test]
async fn links_do_not_lead_out_of_the_root() {
    let world = world(None).await;
    let digest = world.push("a", b"x").await;
    let outside = tempfile::tempdir().unwrap();
    let repositories = world.folder.path().join("docker/registry/v2/repositories");
    std::os::unix::fs::symlink(outside.path(), repositories.join("out")).unwrap();
    let pushed = world.ask(Method::POST, &format!("out/blobs/uploads/?digest={digest}"), &[], "x").await;
    assert!(pushed.status().is_server_error(), "{}", pushed.status());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn referrers_come_in_pages() {
    let world = world(None).await;
    let config = world.push("a", b"{}").await;
    let image = |more: Value| {
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 }, "layers": [],
        });
        manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        manifest
    };
    let subject = Digest::of(b"subject");
    for at in 0..12 {
        let note = format!("{at}{}", "x".repeat(200 << 10));
        let more = json!({
            "subject": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1 },
            "annotations": { "note": note },
        });
        let manifest = image(more);
        let digest = Digest::of(manifest.to_string().as_bytes());
        assert_eq!(world.manifest("a", &digest.to_string(), &manifest).await.status(), StatusCode::CREATED);
    }
    let (mut found, mut next, mut pages) = (0, Some(format!("a/referrers/{subject}")), 0);
    while let Some(path) = next {
        let page = world.get(&path).await;
        let link = header(&page, "link");
        next = link.strip_prefix('<').and_then(|link| link.split_once('>')).map(|(path, _)| path.to_owned());
        let body = page.bytes().await.unwrap();
        assert!(body.len() < 3 << 20, "{}", body.len());
        found += serde_json::from_slice::<Value>(&body).unwrap()["manifests"].as_array().unwrap().len();
        pages += 1;
    }
    assert!(found == 12 && pages > 1, "{found} in {pages}");
}
