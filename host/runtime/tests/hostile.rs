//! Plugins that spin, grab memory or answer with nonsense: each ends in a clear error, in bounded
//! time and memory. They are written by hand, as core modules of the canonical ABI.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use dray_core::policy::{Limits, Plugin, PluginSource, SecretRef};
use dray_engine::{
    Error, Kind, Result, Secret,
    contract::{Choice, Facts, Filter, Images, Plugins, Selection},
};
use dray_runtime::{Runtime, Secrets, Settings};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// A filter whose `select` has this body. Strings lie from byte 16 on; `describe` answers with
/// them.
fn filter(select: &str) -> Vec<u8> {
    component("", "include dray:plugin/filter@0.3.0;", select)
}

fn component(imports: &str, world: &str, select: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (global $top (mut i32) (i32.const 4096))
            (data (i32.const 16) "hostile")
            (data (i32.const 32) "{{}}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.set $top (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            ;; name, version, summary, schemes, schema, wishes, extra: pointer and length of each.
            (func (export "dray:plugin/meta@0.3.0#describe") (result i32)
                (i32.store (i32.const 64) (i32.const 16)) (i32.store (i32.const 68) (i32.const 7))
                (i32.store (i32.const 72) (i32.const 16)) (i32.store (i32.const 76) (i32.const 7))
                (i32.store (i32.const 80) (i32.const 16)) (i32.store (i32.const 84) (i32.const 7))
                (i32.store (i32.const 88) (i32.const 16)) (i32.store (i32.const 92) (i32.const 0))
                (i32.store (i32.const 96) (i32.const 32)) (i32.store (i32.const 100) (i32.const 2))
                (i64.store (i32.const 104) (i64.const 0)) (i64.store (i32.const 112) (i64.const 0))
                (i32.const 64))
            (func (export "dray:plugin/tag-filter@0.3.0#select")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                {select}))"#
    );
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")).unwrap();
    let package = resolve
        .push_str("hostile.wit", &format!("package test:hostile; world hostile {{ {world} }}"))
        .unwrap();
    let world = resolve.select_world(&[package], Some("hostile")).unwrap();
    wit_component::embed_component_metadata(
        &mut module,
        &resolve,
        world,
        wit_component::StringEncoding::UTF8,
    )
    .unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

struct Nothing;

impl Secrets for Nothing {
    fn get(&self, name: &SecretRef) -> Result<Secret> {
        Err(Error::new(Kind::NotFound, name.to_string()))
    }
    fn auth_files(&self) -> Result<Vec<(String, Secret)>> {
        Ok(Vec::new())
    }
}

impl Images for Nothing {
    fn inspect(&self, _tags: Vec<String>) -> futures_core::future::BoxFuture<'_, Result<Vec<Facts>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

async fn load(wasm: &[u8]) -> Result<Arc<dyn Filter>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.wasm");
    std::fs::write(&path, wasm).unwrap();
    let limits = Limits { memory: 4 << 20, call: Duration::from_millis(200) };
    let plugin = Plugin { limits, ..Plugin::from_source(PluginSource::File(path)) };
    let plugins = BTreeMap::from([("hostile".to_owned(), plugin)]);
    let runtime = Runtime::new(Settings { cache: None, plugins, secrets: Arc::new(Nothing) });
    runtime.filter("hostile", &serde_json::json!({})).await
}

async fn select(body: &str) -> Result<Selection> {
    let filter = load(&filter(body)).await?;
    let tags = ["v1".to_owned(), "v2".to_owned()];
    filter.select(Choice { repository: "a", tags: &tags, all: &tags }, "{}", Arc::new(Nothing)).await
}

/// `ok` with kept indices at byte 128, and one group of dropped ones at byte 192.
fn answer(kept: &[u32], dropped: &[u32]) -> String {
    let store = |at: usize, value: usize| format!("(i32.store (i32.const {at}) (i32.const {value}))");
    let list = |from: usize, indices: &[u32]| -> String {
        indices.iter().enumerate().map(|(at, index)| store(from + at * 4, *index as usize)).collect()
    };
    let lists = [list(128, kept), list(256, dropped), store(200, 256), store(204, dropped.len())].concat();
    let selection = [store(112, 128), store(116, kept.len()), store(120, 192), store(124, 1)].concat();
    format!("{lists} (i32.store8 (i32.const 104) (i32.const 0)) {selection} (i32.const 104)")
}

#[track_caller]
fn complains(result: Result<Selection>, about: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind, Kind::Plugin);
    assert!(error.text.contains("hostile") && error.text.contains(about), "{error}");
}

#[tokio::test]
async fn an_honest_one_works() {
    assert_eq!(select(&answer(&[1, 0], &[])).await.unwrap().kept, [1, 0]);
    let selection = select(&answer(&[1], &[0])).await.unwrap();
    assert_eq!(
        selection,
        Selection { kept: vec![1], dropped: vec![(0, String::new())], unknown: Vec::new() }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_that_spins_is_stopped_and_lets_others_work() {
    let began = Instant::now();
    let spinning = tokio::spawn(select("(loop (br 0)) (unreachable)"));
    // One thread serves both: the guest must yield it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!spinning.is_finished() || began.elapsed() > Duration::from_millis(150));
    complains(spinning.await.unwrap(), "ran for more than 200ms");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn one_that_grabs_memory_is_stopped() {
    complains(
        select("(loop (drop (memory.grow (i32.const 16))) (br 0)) (unreachable)").await,
        "more memory than 4 MiB",
    );
}

#[tokio::test]
async fn absurd_indices_are_refused() {
    complains(select(&answer(&[0, 7], &[])).await, "kept tag 7 of 2");
    complains(select(&answer(&[1, 1], &[])).await, "kept tag 1 after");
    complains(select(&answer(&[1], &[1])).await, "dropped tag 1 after");
    complains(select(&answer(&[1], &[2])).await, "dropped tag 2 of 2");
}

#[tokio::test]
async fn answers_outside_of_memory_are_refused() {
    complains(select("(i32.const -16)").await, "");
    complains(select("(i32.store8 (i32.const 104) (i32.const 0)) (i32.store (i32.const 112) (i32.const 128)) (i32.store (i32.const 116) (i32.const 2000000000)) (i32.const 104)").await, "");
    complains(select("(unreachable)").await, "unreachable");
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_a_remedy() {
    let module = wat::parse_str("(module)").unwrap();
    let component = wat::parse_str("(component)").unwrap();
    let older = wat::parse_str(r#"(component (import "dray:plugin/log@0.1.0" (instance)))"#).unwrap();
    for (wasm, about) in [
        (b"junk".as_slice(), "no WebAssembly"),
        (&module, "core module"),
        (&component, "exports nothing"),
        (&older, "version 0.1.0 of the plugin contract"),
    ] {
        let Err(error) = load(wasm).await else { panic!("{about}: loaded") };
        assert!(error.text.contains(about), "{error}");
    }
}

#[tokio::test]
async fn a_filter_that_asks_for_files_does_not_get_them() {
    let import = r#"(import "dray:plugin/files@0.3.0" "stat" (func (param i32 i32 i32)))"#;
    let world =
        "import dray:plugin/files@0.3.0; export dray:plugin/meta@0.3.0; export dray:plugin/tag-filter@0.3.0;";
    let Err(error) = load(&component(import, world, "(unreachable)")).await else { panic!("loaded") };
    assert!(error.text.contains("dray:plugin/files"), "{error}");
    assert!(error.help.unwrap().contains("wit/plugin.wit"));
}

#[tokio::test]
async fn tables_are_memory() {
    let world = "include dray:plugin/filter@0.3.0;";
    let grows = "(loop (drop (table.grow $many (ref.null func) (i32.const 100000))) (br 0)) (unreachable)";
    let filter = load(&component("(table $many 1 funcref)", world, grows)).await.unwrap();
    let selected = filter
        .select(Choice { repository: "a", tags: &["v1".to_owned()], all: &[] }, "{}", Arc::new(Nothing))
        .await;
    complains(selected, "more memory than 4 MiB");
}

/// A component whose interface has one function of a wrong type, and these imports.
fn mistyped(imports: &str, interface: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(component
            {imports}
            (core module $m (func (export "f") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $f (result u32) (canon lift (core func $i "f")))
            (instance $t (export "select" (func $f)))
            (export "dray:plugin/{interface}@0.3.0" (instance $t)))"#
    ))
    .unwrap()
}

#[tokio::test]
async fn what_has_other_types_is_refused_when_it_is_loaded() {
    let Err(error) = load(&mistyped("", "tag-filter")).await else { panic!("loaded") };
    assert!(error.text.contains("its `tag-filter` is not the one of version 0.3.0"), "{error}");
}

#[tokio::test]
async fn a_reader_gets_no_function_that_writes() {
    let writing = r#"(import "dray:plugin/writing@0.3.0" (instance (export "x" (func (param "y" string)))))"#;
    let Err(error) = load(&mistyped(writing, "references")).await else { panic!("loaded") };
    assert!(error.text.contains("it imports `writing`, and exports no sink"), "{error}");
}
