//! Go templates (pkg.go.dev/text/template), as far as people use them in `skopeo inspect --format`. What is not
//! understood is refused by name.
//!
//! There are fields, variables, `if`, `with`, `range`, pipelines and the functions of [`functions`]. There are no template
//! definitions, no `break` and `continue`, and no methods.

mod evaluate;
mod functions;
mod parse;
mod value;

pub use value::Value;

/// Fills in a template. skopeo ends the output with a line break.
///
/// # Errors
/// Fails if the template is malformed, uses what is not supported, or asks for a field that does not exist.
pub fn fill(template: &str, data: &Value) -> Result<String, String> {
    let nodes = parse::parse(template)?;
    let mut out = evaluate::fill(&nodes, data)?;
    if !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        let text = |text: &str| Value::Text(text.into());
        Value::Struct(vec![
            ("Name".into(), text("r.example/app")),
            ("Created".into(), Value::Time("2026-01-04T00:00:00.5Z".into())),
            ("RepoTags".into(), Value::List(vec![text("1"), text("2")])),
            ("Labels".into(), Value::Map([("a.b".into(), text("c")), ("d".into(), text("<e>"))].into())),
            ("Env".into(), Value::NoList),
            ("Size".into(), Value::Number(7)),
        ])
    }

    /// What skopeo 1.9.3 prints for these templates, with data of the same kind.
    #[test]
    fn templates_give_what_go_gives() {
        for (template, expected) in [
            ("{{.Name}}", "r.example/app\n"),
            ("a\n", "a\n"),
            ("{{.RepoTags}} {{.Labels}} {{.Env}} {{.Size}}", "[1 2] map[a.b:c d:<e>] [] 7\n"),
            ("{{.Created}}", "2026-01-04 00:00:00.5 +0000 UTC\n"),
            ("{{index .Labels \"a.b\"}} {{.Labels.d}} {{.Labels.none}}", "c <e> <no value>\n"),
            ("{{index .RepoTags 1}} {{len .RepoTags}}", "2 2\n"),
            ("{{range .RepoTags}}{{.}},{{end}}", "1,2,\n"),
            ("{{range $i, $t := .RepoTags}}{{$i}}={{$t}} {{end}}", "0=1 1=2 \n"),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a.b=c d=<e> \n"),
            ("{{range .Env}}x{{else}}none{{end}}", "none\n"),
            ("{{if .Env}}a{{else if .Name}}b{{else}}c{{end}}", "b\n"),
            ("{{with .Name}}{{.}}{{end}}{{with .Env}}x{{else}}y{{end}}", "r.example/appy\n"),
            (
                "{{json .Labels}} {{.RepoTags | json}}",
                "{\"a.b\":\"c\",\"d\":\"\\u003ce\\u003e\"} [\"1\",\"2\"]\n",
            ),
            ("{{join .RepoTags \", \"}}", "1, 2\n"),
            (
                "{{printf \"%s-%d|%-5s|%5d|%q|%v|%%\" .Name .Size \"ab\" 3 \"x\" .RepoTags}}",
                "r.example/app-7|ab   |    3|\"x\"|[1 2]|%\n",
            ),
            ("{{upper .Name}} {{lower \"ABC\"}} {{split \"a,b\" \",\"}}", "R.EXAMPLE/APP abc [a b]\n"),
            ("{{ .Name -}}   \n  {{- .Size }}", "r.example/app7\n"),
            ("{{/* nothing */}}x{{- /* less */ -}} y", "xy\n"),
            (
                "{{$n := .Name}}{{range .RepoTags}}{{$n}}:{{.}} {{$.Size}} {{end}}",
                "r.example/app:1 7 r.example/app:2 7 \n",
            ),
            ("{{if and .Name (not .Env)}}{{if eq .Size 7}}yes{{end}}{{end}}", "yes\n"),
            ("{{if or (eq .Name \"x\" \"r.example/app\") false}}1{{end}}{{if lt .Size 8}}2{{end}}", "12\n"),
            ("{{print .Size 8}} {{println \"a\" 1}}", "7 8 a 1\n"),
            ("{{\"quoted\\n\"}}{{`raw\\n`}}", "quoted\nraw\\n\n"),
            ("{{(index .RepoTags 0)}}", "1\n"),
        ] {
            assert_eq!(fill(template, &data()).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (template, why) in [
            ("{{.Name", "it is not closed"),
            ("{{.Nmae}}", "there is no field Nmae"),
            ("{{.Name.First}}", "has no fields"),
            ("{{range .RepoTags}}x", "`range` has no `end`"),
            ("{{end}}", "`end` without"),
            ("{{define \"x\"}}{{end}}", "`define` is not supported"),
            ("{{call .Name}}", "`call` is not supported"),
            ("{{nonsense .Name}}", "`nonsense` is not defined"),
            ("{{index .RepoTags 9}}", "out of range"),
            ("{{range .Name}}{{end}}", "cannot go through"),
            ("{{printf \"%x\" .Name}}", "%x"),
            ("{{.Name | }}", "nothing"),
            ("{{$x}}", "$x is not defined"),
            ("{{\"open}}", "text"),
            ("{{join .Name \",\"}}", "join"),
            ("{{break}}", "`break` is not supported"),
        ] {
            let error = fill(template, &data()).expect_err(template);
            assert!(error.contains(why), "{template}: {error}");
        }
        // Nesting has an end.
        assert!(fill(&"{{if true}}".repeat(10_000), &data()).is_err());
        assert!(fill(&format!("{{{{{}1{}}}}}", "(".repeat(10_000), ")".repeat(10_000)), &data()).is_err());
    }
}
