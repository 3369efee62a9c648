//! Tags that get another name on their way, and tags that travel with an image.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use support::{
    World,
    memory::{Asked, Memory, reply},
};

/// A policy with one rule from the repository `app` of a source to the one of a destination.
fn policy(source: &Memory, destination: &Memory, to: &str, more: &str) -> String {
    let (from, at) = (source.host(), destination.host());
    format!("version = 1\n[[rule]]\nfrom = \"docker://{from}/app\"\nto = \"docker://{at}/app{to}\"\n{more}\n")
}

#[test]
fn a_mapper_renames_tags_and_a_collision_is_found_before_anything_moves() {
    let world = World::new();
    let is_gone = |asked: &Asked| asked.path.ends_with("/manifests/v2.0") && asked.method != "PUT";
    let source = Memory::odd(move |asked, _| if is_gone(asked) { reply("404 Not Found") } else { None });
    let destination = Memory::start();
    for tag in ["v1.0", "v1.1", "latest"] {
        source.image("app", tag, tag.as_bytes());
    }
    let mapped = "map-tags = { mapper = \"regex\", pattern = \"^v\", replace = \"\" }";
    world.write("dray.toml", &policy(&source, &destination, ":{tag}", mapped));
    assert!(world.dray(&["sync"]).ok().out.contains("3 images copied"));
    let has = |tag: &str| destination.has("app", tag);
    assert!(has("1.0") && has("1.1") && has("latest") && !has("v1.0"));
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 3 unchanged"));
    let planned = world.dray(&["plan", "--explain"]).ok().out;
    assert!(planned.contains("v1.0 -> 1.0"), "{planned}");

    // The same image under both names is copied once; another one collides, and neither is copied.
    source.image("app", "1.1", b"v1.1");
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 3 unchanged"));
    source.image("app", "1.0", b"another");
    let before = destination.count("PUT ");
    let collided = world.dray(&["sync"]);
    assert!(collided.code == 1 && collided.err.contains("with different content"), "{}", collided.err);
    assert_eq!(destination.count("PUT "), before);

    // A tag that is listed and not there is no reason to leave the other one out.
    for (tag, layer) in [("1.0", "v1.0"), ("2.0", "two"), ("v2.0", "of nobody's")] {
        source.image("app", tag, layer.as_bytes());
    }
    let partly = world.dray(&["sync"]);
    assert!(partly.out.contains("1 image copied"), "{}{}", partly.out, partly.err);
    assert!(destination.has("app", "2.0"));

    // In the path of the destination, the new name stands, too.
    let mapped = "tags = \"v1.1\"\nmap-tags = { mapper = \"regex\", pattern = \"^v(.*)[.].*$\", replace = \"major-$1\" }";
    world.write("dray.toml", &policy(&source, &destination, "/{tag}", mapped));
    world.dray(&["sync"]).ok();
    assert!(destination.has("app/major-1", "v1.1"));
}

#[test]
fn what_is_wrong_with_a_mapper_is_told_before_a_run() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    source.image("app", "v1", b"layer");
    for (to, mapper, told) in [
        ("", "{ mapper = \"regex\", pattern = \"^v\", replace = \"\" }", "`to` has no {tag}"),
        (":{tag}", "{ mapper = \"regex\", pattern = \"(\", replace = \"\" }", "pattern: "),
        (":{tag}", "{ mapper = \"regex\", patern = \"v\", replace = \"\" }", "regex needs the key `pattern`"),
        (":{tag}", "{ mapper = \"regex\", pattern = \"^v(.)\", replace = \"$2\" }", "no group `2`"),
        (":{tag}", "{ mapper = \"regx\" }", "did you mean `regex`?"),
        (":{tag}", "{ mapper = \"glob\", pattern = \"v*\" }", "there are regex"),
        (":{tag}", "\"regex\"", "expected a table"),
    ] {
        world.write("dray.toml", &policy(&source, &destination, to, &format!("map-tags = {mapper}")));
        let checked = world.dray(&["check"]);
        assert!(
            checked.code == 2 && checked.err.contains(told),
            "{mapper}: {} {}",
            checked.code,
            checked.err
        );
        assert!(checked.err.contains("dray.toml:5"), "{}", checked.err);
    }
    // What a mapper makes of a tag is known only then, and a tag with a name that does not do fails alone.
    let digest = "0".repeat(64);
    for tag in ["up", &format!("vsha256-{digest}"), &format!("vsha256-{digest}.sig"), "v-x"] {
        source.image("app", tag, b"layer");
    }
    let mapped = "map-tags = { mapper = \"regex\", pattern = \"^(v|u)\", replace = \"\" }";
    world.write("dray.toml", &policy(&source, &destination, "/x:{tag}", mapped));
    let odd = world.dray(&["sync"]);
    assert!(
        odd.code == 1 && odd.out.contains("2 images copied, 0 unchanged, 3 failed"),
        "{}{}",
        odd.out,
        odd.err
    );
    assert!(odd.err.contains("the mapper regex names it `-x`, which is no tag"), "{}", odd.err);
    for name in [format!("sha256-{digest}"), format!("sha256-{digest}.sig")] {
        let told = format!("names it `{name}`, which belongs to an image by its digest");
        assert!(odd.err.contains(&told) && !destination.has("app/x", &name), "{told}: {}", odd.err);
    }
    assert!(destination.has("app/x", "1") && destination.has("app/x", "p"));
    let mapped = "map-tags = { mapper = \"regex\", pattern = \"v1\", replace = \"../up\" }";
    // Where dray deletes what is gone, tags have to keep their names.
    let pruned = format!("prune = true\n{}", mapped.replace("../up", "up"));
    world.write("dray.toml", &policy(&source, &destination, ":{tag}", &pruned));
    let pruned = world.dray(&["check"]);
    assert!(pruned.code == 2 && pruned.err.contains("`prune` needs tags"), "{}", pruned.err);
}

#[test]
fn related_tags_arrive_with_their_image() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    let digest = source.image("app", "1.0", b"layer");
    let vex = format!("{}.vex", digest.replace(':', "-"));
    source.image("app", &vex, b"statement");
    let stray = format!("sha256-{}.vex", "0".repeat(64));
    source.image("app", &stray, b"of nobody's");
    let related = "tags = \"1.*\"\nrelated = [\"sha256-{hex}.vex\"]";
    world.write("dray.toml", &policy(&source, &destination, "", related));
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
    let puts: Vec<String> =
        destination.asked().into_iter().filter(|asked| asked.contains("/manifests/")).collect();
    let put = |tag: &str| puts.iter().position(|asked| *asked == format!("PUT /v2/app/manifests/{tag}"));
    assert!(put(&vex).unwrap() < put("1.0").unwrap(), "{puts:?}");
    assert!(destination.has("app", &vex) && !destination.has("app", &stray));
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 1 unchanged"));
    let newer = source.image("app", &vex, b"a newer statement");
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
    assert!(destination.has("app", &newer));
    // A saved plan knows of them, too.
    source.image("app", &vex, b"the newest statement");
    world.dray(&["plan", "--out", "plan.json"]).ok();
    assert!(world.dray(&["apply", "plan.json"]).ok().out.contains("1 image copied"));

    for (template, told) in [("{hx}.vex", "it has to have {hex} once"), ("{hex}/x", "is no tag")] {
        world.write("dray.toml", &policy(&source, &destination, "", &format!("related = \"{template}\"")));
        let wrong = world.dray(&["check"]);
        assert!(wrong.code == 2 && wrong.err.contains(told), "{}", wrong.err);
    }
}

#[test]
fn related_tags_stay_where_their_images_do() {
    let world = World::new();
    let source = Memory::start();
    let destination = Memory::odd(|asked, held| {
        let tag = asked.path.strip_prefix("/v2/app/manifests/").filter(|_| asked.method == "DELETE")?;
        let removed = held.lock().unwrap().manifests.remove(&("app".to_owned(), tag.to_owned()));
        reply(if removed.is_some() { "202 Accepted" } else { "404 Not Found" })
    });
    let related = |tag: &str, statement: &str| {
        let digest = source.image("app", tag, tag.as_bytes());
        let vex = format!("vex-{}", digest.trim_start_matches("sha256:"));
        source.image("app", &vex, statement.as_bytes());
        vex
    };
    let vex = related("1.0", "a statement");
    let gone = related("2.0", "another statement");
    let rule = |more: &str| {
        let rule =
            policy(&source, &destination, "", &format!("tags = \"*.0\"\nrelated = \"vex-{{hex}}\"\n{more}"));
        world.write("dray.toml", &rule);
    };
    rule("");
    assert!(world.dray(&["sync"]).ok().out.contains("2 images copied"));

    // A tag that may not change is left as it is, or the image fails.
    let theirs = destination.image("app", &vex, b"somebody else's");
    rule("on-change = \"keep\"");
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 2 unchanged"));
    rule("on-change = \"refuse\"");
    let refused = world.dray(&["sync"]);
    assert!(
        refused.code == 1 && refused.err.contains("the rule does not let tags change"),
        "{}",
        refused.err
    );
    let named = |tag: &str| {
        let held = destination.held.lock().unwrap();
        let (_, body) = held.manifests.get(&("app".to_owned(), tag.to_owned()))?;
        Some(dray_core::Digest::of(body).to_string())
    };
    assert_eq!(named(&vex).as_ref(), Some(&theirs));

    // What nothing keeps is deleted, and what belongs to an image is none by itself.
    let host = destination.host();
    let retain = format!("\n[[retain]]\nat = \"docker://{host}/app\"\nkeep = \"1.*\"\nlimit = 1\n");
    rule(&retain);
    let retained = world.dray(&["retain", "--apply"]).ok();
    assert!(retained.out.contains("1 tag deleted"), "{}{}", retained.out, retained.err);
    assert!(
        named("1.0").is_some() && named(&vex).is_some() && named(&gone).is_some() && named("2.0").is_none()
    );
    rule("prune = \"all\"\nprune-limit = \"all\"");
    source.held.lock().unwrap().manifests.remove(&("app".to_owned(), gone.clone()));
    world.dray(&["sync"]).ok();
    assert!(named(&gone).is_some(), "it is no image that the rule would have written");
}

#[test]
fn what_one_of_two_rules_wants_beside_an_image_comes_along() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    let digest = source.image("app", "1.0", b"layer");
    let vex = format!("{}.vex", digest.replace(':', "-"));
    source.image("app", &vex, b"statement");
    let (from, to) = (source.host(), destination.host());
    let rule = |more: &str| {
        format!(
            "[[rule]]\nfrom = \"docker://{from}/app\"\nto = \"docker://{to}/app\"\ntags = \"1.0\"\n{more}"
        )
    };
    let rules = format!("version = 1\n{}{}", rule(""), rule("related = \"sha256-{hex}.vex\"\n"));
    world.write("dray.toml", &rules);
    world.dray(&["sync"]).ok();
    assert!(destination.has("app", "1.0") && destination.has("app", &vex));
}

#[test]
fn a_lock_holds_for_the_mapper_of_its_rule() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    source.image("app", "v1", b"layer");
    let rule = |replace: &str| {
        let mapped =
            format!("map-tags = {{ mapper = \"regex\", pattern = \"^v\", replace = \"{replace}\" }}");
        world.write("dray.toml", &policy(&source, &destination, ":{tag}", &mapped));
    };
    rule("");
    world.dray(&["lock"]).ok();
    world.dray(&["sync", "--locked"]).ok();
    rule("prod-");
    let other = world.dray(&["sync", "--locked"]);
    assert!(other.code != 0 && other.err.contains("dray lock"), "{}", other.err);
    assert!(!destination.has("app", "prod-1"));
}
