//! Observers, which hear what a run does.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::{Fake, Ran, World, memory::Memory, respond};

/// What was posted: headers and bodies.
type Posted = Arc<Mutex<Vec<(String, Value)>>>;

/// Somebody who takes what is posted.
fn hook(status: &'static str) -> (Fake, Posted) {
    let posted = Posted::default();
    let heard = posted.clone();
    let fake = Fake::start_raw(move |request, body, stream| {
        let body = serde_json::from_slice(body).unwrap_or_default();
        heard.lock().unwrap().push((request.to_owned(), body));
        respond(stream, status, "", b"");
    });
    (fake, posted)
}

fn policy(hook: &str, from: &Memory, to: &Memory, more: &str) -> String {
    let (from, to) = (from.host(), to.host());
    format!(
        "version = 1\n[registry.\"{hook}\"]\ntls = \"off\"\n\
         [[rule]]\nname = \"apps\"\nfrom = \"docker://{from}/app\"\nto = \"docker://{to}/app\"\n{more}"
    )
}

#[test]
fn a_webhook_hears_of_a_run_with_a_token_and_of_failures() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    let digest = source.image("app", "1", b"one");
    let (fake, posted) = hook("200 OK");
    let table = format!(
        "[[observe]]\nobserver = \"webhook\"\nurl = \"https://{}/hook?x=1\"\ntoken = \"env:HOOK_TOKEN\"\n",
        fake.host
    );
    world.write("dray.toml", &policy(&fake.host, &source, &destination, &table));
    let run = |arguments: &[&str]| Ran::of(world.command(arguments).env("HOOK_TOKEN", "hunter2"));
    // Neither a check nor a plan is a run.
    run(&["check"]).ok();
    run(&["plan"]).ok();
    assert_eq!(fake.requests().len(), 0);
    run(&["sync"]).ok();
    let (request, body) = posted.lock().unwrap().remove(0);
    assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer hunter2\r\n"), "{request}");
    let events = body["events"].as_array().unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["started", "copied", "finished"], "{body}");
    assert_eq!(
        (&events[1]["digest"], &events[1]["rule"], &events[1]["destination"]),
        (&json!(digest), &json!("apps"), &json!(format!("docker://{}/app:1", destination.host())))
    );
    assert_eq!((&events[2]["copied"], &events[2]["failed"]), (&json!(1), &json!(0)));
    assert_eq!(events[2]["text"], "1 copied");
    assert!(posted.lock().unwrap().is_empty(), "one request for all events of a moment");

    // A failure is told, and the run fails as it would.
    let broken = source.image("app", "2", b"two");
    source.held.lock().unwrap().blobs.clear();
    let failed = run(&["sync"]);
    assert_eq!(failed.code, 1, "{}", failed.err);
    let (_, body) = posted.lock().unwrap().remove(0);
    let told = body["events"].as_array().unwrap().iter().find(|event| event["kind"] == "failed").unwrap();
    assert_eq!(told["digest"], json!(broken));
    assert!(told["text"].as_str().unwrap().starts_with("failed to "), "{told}");
}

#[test]
fn a_chat_room_s_address_may_be_a_secret_and_what_it_refuses_is_a_warning() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    source.image("app", "1", b"one");
    let (fake, posted) = hook("403 Forbidden");
    let table = "[[observe]]\nobserver = \"webhook\"\nurl = \"env:ROOM\"\nformat = \"chat\"\n";
    world.write("dray.toml", &policy(&fake.host, &source, &destination, table));
    let address = format!("https://{}/services/hunter2", fake.host);
    let ran = Ran::of(world.command(&["sync"]).env("ROOM", &address)).ok();
    assert!(ran.out.contains("1 image copied"), "{}", ran.out);
    assert!(ran.err.contains("failed to tell the observer webhook"), "{}", ran.err);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    let (request, body) = posted.lock().unwrap().remove(0);
    assert!(request.starts_with("POST /services/hunter2 "), "{request}");
    assert_eq!(body, json!({ "text": "dray finished: 1 copied" }));
    // A secret that is missing is told before a run.
    let lacking = world.dray(&["sync"]);
    assert!(lacking.code == 2 && lacking.err.contains("env:ROOM"), "{} {}", lacking.code, lacking.err);
}

#[test]
fn no_message_shows_a_secret_address() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    source.image("app", "1", b"one");
    for (status, address) in [
        ("503 Service Unavailable", "services/hunter2"),
        ("429 Too Many Requests", "services/hunter2"),
        ("500 Internal Server Error", "services/hunter2?wait=true"),
        ("403 Forbidden", "hunter2/h\u{fc}nter2?hunter2=1#hunter2"),
    ] {
        let (fake, posted) = hook(status);
        let table = "[[observe]]\nobserver = \"webhook\"\nurl = \"env:ROOM\"\ntoken = \"file:token\"\n";
        world.write("dray.toml", &policy(&fake.host, &source, &destination, table));
        world.write("token", "hunter2-token\n");
        let address = format!("https://{}/{address}", fake.host);
        let told = ["sync", "-vvv", "--trace-plugin", "webhook"];
        let ran = Ran::of(world.command(&told).env("ROOM", &address)).ok();
        assert!(ran.err.contains("failed to tell the observer webhook"), "{status}: {}", ran.err);
        assert!(!ran.err.contains("hunter2") && !ran.err.contains("h%C3%BCnter2"), "{status}: {}", ran.err);
        // Who answers late may have heard of it, so a batch is sent once, but where the server asks for patience.
        if !status.starts_with("429") {
            assert_eq!(posted.lock().unwrap().len(), 1, "{status}");
        }
    }
}

#[test]
fn an_observer_asks_no_host_that_its_table_does_not_name() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    source.image("app", "1", b"one");
    let (other, heard) = hook("200 OK");
    let onward = format!("Location: http://{}/stolen\r\n", other.host);
    let fake = Fake::start(move |_, stream| respond(stream, "307 Temporary Redirect", &onward, b""));
    let table = format!("[[observe]]\nobserver = \"webhook\"\nurl = \"https://{}/hook\"\n", fake.host);
    world.write("dray.toml", &policy(&fake.host, &source, &destination, &table));
    let ran = world.dray(&["sync"]).ok();
    assert!(ran.err.contains("failed to tell the observer webhook"), "{}", ran.err);
    assert!(heard.lock().unwrap().is_empty());
}

#[test]
fn what_is_wrong_with_an_observer_is_told_before_a_run() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    for (table, told) in [
        ("observer = \"webhook\"\n", "url"),
        ("observer = \"webhook\"\nurl = \"http://x.example\"\n", "write https://"),
        ("observer = \"webhook\"\nurl = \"https://x.example\"\nformat = \"chatt\"\n", "did you mean `chat`?"),
        ("observer = \"webhok\"\nurl = \"https://x.example\"\n", "did you mean `webhook`?"),
        ("url = \"https://x.example\"\n", "needs the key `observer`"),
    ] {
        let table = format!("[[observe]]\n{table}");
        world.write("dray.toml", &policy("x.example", &source, &destination, &table));
        let checked = world.dray(&["check"]);
        assert!(checked.code == 2 && checked.err.contains(told), "{table}: {}", checked.err);
    }
}
