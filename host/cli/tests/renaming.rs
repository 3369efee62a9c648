//! Tags that get another name on their way, and tags that travel with an image.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use support::{World, memory::Memory};

/// A policy with one rule from the repository `app` of a source to the one of a destination.
fn policy(source: &Memory, destination: &Memory, to: &str, more: &str) -> String {
    let (from, at) = (source.host(), destination.host());
    format!("version = 1\n[[rule]]\nfrom = \"docker://{from}/app\"\nto = \"docker://{at}/app{to}\"\n{more}\n")
}

#[test]
fn a_mapper_renames_tags_and_a_collision_is_found_before_anything_moves() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
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
        (":{tag}", "{ mapper = \"regx\" }", "did you mean `regex`?"),
        (":{tag}", "{ mapper = \"glob\", pattern = \"v*\" }", "there are regex"),
        (":{tag}", "\"regex\"", "map-tags"),
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
    // What a mapper makes of a tag is known only then.
    let mapped = "map-tags = { mapper = \"regex\", pattern = \"v1\", replace = \"../up\" }";
    world.write("dray.toml", &policy(&source, &destination, "/x:{tag}", mapped));
    let odd = world.dray(&["sync"]);
    assert!(odd.code == 1 && odd.err.contains("renamed v1 to `../up`, which is no tag"), "{}", odd.err);
    assert_eq!(destination.count("PUT "), 0);
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
    let related = "tags = \"1.*\"\nrelated = [\"{algorithm}-{hex}.vex\"]";
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
