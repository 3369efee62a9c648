//! `images-from`: the images that lists, Kubernetes manifests and rendered charts name.

use super::{Policy, Problem, Rule, Spanned, Tags};
use crate::{Digest, Reference};
use saphyr_parser::{Event, Parser};
use std::collections::BTreeMap;

/// An image that a file names, in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedImage {
    /// `host/path`: `nginx` is `docker.io/library/nginx` (Docker's reference grammar).
    pub repository: String,
    /// Without a tag and a digest, `latest`.
    pub tag: Option<String>,
    /// The digest that is wanted.
    pub digest: Option<Digest>,
}

impl ListedImage {
    /// Reads a name as Docker and Kubernetes write it. `None` means that it is none.
    ///
    /// ```
    /// use dray_core::policy::ListedImage;
    ///
    /// let image = ListedImage::read("nginx:1.27").unwrap();
    /// assert_eq!((image.repository.as_str(), image.tag.as_deref()), ("docker.io/library/nginx", Some("1.27")));
    /// assert_eq!(ListedImage::read("{{ .Values.image }}"), None);
    /// ```
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches("docker://");
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse().ok()?)),
            None => (text, None),
        };
        let last = named.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match named[last..].split_once(':') {
            Some((name, tag)) => (&named[..last + name.len()], Some(tag.to_owned())),
            None => (named, None),
        };
        let part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let (first, rest) = path.split_once('/').unwrap_or(("", path));
        let is_host = first.contains(['.', ':']) || first == "localhost";
        let name = if is_host { rest } else { path };
        let good = !name.is_empty() && name.bytes().all(part) && !name.starts_with(['/', '.', '-']);
        let good_tag = tag.as_ref().is_none_or(|tag| !tag.is_empty() && tag.bytes().all(word));
        if !good || !good_tag || first.contains(['{', '$', ' ']) {
            return None;
        }
        let repository = match (is_host, first.is_empty()) {
            (true, _) if matches!(first, "docker.io" | "index.docker.io") && !rest.contains('/') => {
                format!("docker.io/library/{rest}")
            }
            (true, _) if first == "index.docker.io" => format!("docker.io/{rest}"),
            (true, _) => path.to_owned(),
            (false, true) => format!("docker.io/library/{path}"),
            (false, false) => format!("docker.io/{path}"),
        };
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Some(ListedImage { repository, tag, digest })
    }
}

/// The images that a file names. YAML and JSON are read for the values of `image`; any other file has one image a line, and
/// `#` begins a comment.
///
/// # Errors
/// Fails with a sentence for people if the file cannot be read as what its name says, or a line is no image.
pub fn images_in(name: &str, text: &str) -> Result<Vec<ListedImage>, String> {
    let lower = name.to_ascii_lowercase();
    if [".yaml", ".yml", ".json"].iter().any(|end| lower.ends_with(end)) {
        in_yaml(text)
    } else {
        in_lines(text)
    }
}

fn in_lines(text: &str) -> Result<Vec<ListedImage>, String> {
    let mut images = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let read = ListedImage::read(line);
        images.push(read.ok_or_else(|| format!("line {}: `{line}` is no image", number + 1))?);
    }
    Ok(images)
}

/// What a collection of a YAML document is, while it is read.
enum Open {
    List,
    /// With the key whose value comes next, and the scalars that it has.
    Map {
        key: Option<String>,
        scalars: BTreeMap<String, String>,
    },
}

/// Reads the events of YAML (1.2; JSON is a part of it). Aliases are not followed, so a small file stays small.
fn in_yaml(text: &str) -> Result<Vec<ListedImage>, String> {
    let mut images = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| format!("it is no YAML: {error}"))?;
        match event {
            Event::Scalar(value, ..) => scalar(&mut open, &value, &mut images)?,
            Event::Alias(_) => scalar(&mut open, "", &mut images)?,
            Event::SequenceStart(..) => open.push(Open::List),
            Event::MappingStart(..) => open.push(Open::Map { key: None, scalars: BTreeMap::new() }),
            Event::SequenceEnd | Event::MappingEnd => {
                let closed = open.pop();
                if let Some(Open::Map { key, .. }) = open.last_mut() {
                    let key = key.take();
                    // Values of a chart: image: { registry, repository, tag }.
                    if let (Some("image"), Some(Open::List)) = (key.as_deref(), &closed) {
                        return Err("an `image` is a list, and not a name".into());
                    }
                    if let (Some("image"), Some(Open::Map { scalars, .. })) = (key.as_deref(), closed) {
                        if scalars.is_empty() {
                            // `{{ .Values.image }}` is a map within a map.
                            return Err(
                                "an `image` has no name; render a chart first, with `helm template`".into()
                            );
                        }
                        images.extend(composed(&scalars)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(images)
}

fn scalar(open: &mut [Open], value: &str, images: &mut Vec<ListedImage>) -> Result<(), String> {
    let Some(Open::Map { key, scalars }) = open.last_mut() else { return Ok(()) };
    let Some(key) = key.take() else {
        *key = Some(value.to_owned());
        return Ok(());
    };
    if key == "image" && !value.is_empty() {
        let read = ListedImage::read(value);
        images.push(read.ok_or_else(|| {
            format!("`image: {value}` is no image; render a chart first, with `helm template`")
        })?);
    }
    scalars.insert(key, value.to_owned());
    Ok(())
}

fn composed(scalars: &BTreeMap<String, String>) -> Result<Option<ListedImage>, String> {
    let Some(repository) = scalars.get("repository") else { return Ok(None) };
    let registry = scalars.get("registry").filter(|registry| !registry.is_empty());
    let tag = scalars.get("tag").filter(|tag| !tag.is_empty());
    let name = registry.map_or(repository.clone(), |registry| format!("{registry}/{repository}"));
    let name = tag.map_or(name.clone(), |tag| format!("{name}:{tag}"));
    ListedImage::read(&name).map(Some).ok_or_else(|| format!("`image` names `{name}`, which is no image"))
}

/// Reads the files that a path or a glob names, to their names and texts. An error is a sentence for people.
pub type ReadFiles<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<(String, String)>, String>;

impl Policy {
    /// Reads the files of `images-from`. `read` gives name and text of each file that a path or a glob names.
    ///
    /// # Errors
    /// Every file that cannot be read, or names no image, with the place of its name.
    pub fn read_images(&mut self, read: ReadFiles<'_>) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut rules = Vec::new();
        for mut rule in std::mem::take(&mut self.rules) {
            let mut pinned = Vec::new();
            for named in std::mem::take(&mut rule.images_from) {
                let mut wrong = |message: String| {
                    problems.push(Problem::new(message, named.span.clone()).help(HELP));
                };
                let mut found = Vec::new();
                match read(&named.value) {
                    Ok(files) if files.is_empty() => wrong(format!("`{}` names no file", named.value)),
                    Ok(files) => {
                        for (name, text) in files {
                            match images_in(&name, &text) {
                                Ok(images) => found.extend(images),
                                Err(why) => wrong(format!("failed to read {name}: {why}")),
                            }
                        }
                        if found.is_empty() && problems.is_empty() {
                            problems.push(
                                Problem::new(format!("`{}` names no image", named.value), named.span.clone())
                                    .help(HELP),
                            );
                        }
                    }
                    Err(why) => wrong(format!("failed to {why}")),
                }
                found.sort();
                found.dedup();
                for image in found {
                    match (image.tag, image.digest) {
                        (Some(tag), Some(digest)) => {
                            pinned.push(pinned_rule(&rule, &named, &image.repository, tag, digest));
                        }
                        (Some(tag), None) => {
                            rule.from.push(at(&named, format!("{}:{tag}", image.repository)))
                        }
                        (None, digest) => {
                            let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
                            rule.from.push(at(&named, format!("{}{digest}", image.repository)));
                        }
                    }
                }
            }
            if !rule.from.is_empty() {
                rules.push(rule);
            }
            rules.extend(pinned);
        }
        self.rules = rules;
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

const HELP: &str = "name a list with one image a line, a YAML file, or a folder of them";

fn at(named: &Spanned<String>, name: String) -> Spanned<Reference> {
    let reference = Reference { scheme: "docker".into(), rest: format!("//{name}"), blobs: None };
    Spanned { value: reference, span: named.span.clone() }
}

/// The rule of one image whose tag is pinned to a digest.
fn pinned_rule(rule: &Rule, named: &Spanned<String>, repository: &str, tag: String, digest: Digest) -> Rule {
    let literal = Spanned { value: tag.clone(), span: named.span.clone() };
    let tags = Tags { literals: vec![literal], pins: [(tag, digest)].into(), ..Tags::default() };
    Rule { from: vec![at(named, repository.to_owned())], tags: Some(tags), ..rule.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(images: &[ListedImage]) -> Vec<String> {
        let tag = |image: &ListedImage| image.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = |image: &ListedImage| if image.digest.is_some() { "@" } else { "" };
        images.iter().map(|image| format!("{}{}{}", image.repository, tag(image), digest(image))).collect()
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("nginx", Some("docker.io/library/nginx:latest")),
            ("a/b:1", Some("docker.io/a/b:1")),
            ("docker.io/nginx:1", Some("docker.io/library/nginx:1")),
            ("docker://ghcr.io/a/b:1", Some("ghcr.io/a/b:1")),
            ("localhost:5000/a", Some("localhost:5000/a:latest")),
            (&format!("k8s.gcr.io/pause:3.9@{digest}"), Some("k8s.gcr.io/pause:3.9@")),
            (&format!("a@{digest}"), Some("docker.io/library/a@")),
            ("a@sha256:12", None),
            ("{{ .Values.image }}", None),
            ("${IMAGE}", None),
            ("UPPER/a", None),
            ("a:", None),
            ("a b", None),
            ("", None),
        ] {
            let read = ListedImage::read(text).map(|image| names(&[image]).remove(0));
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn lists_and_manifests_name_their_images() {
        let list = "# mine\nnginx:1.27 # web\n\nghcr.io/a/b:2\n";
        let expected = ["docker.io/library/nginx:1.27", "ghcr.io/a/b:2"];
        assert_eq!(names(&images_in("images.txt", list).unwrap()), expected);
        assert!(images_in("images.txt", "nginx:1\nno image\n").unwrap_err().contains("line 2"));
        let yaml = "kind: Pod\nspec:\n  initContainers:\n  - {name: a, image: \"busybox:1\"}\n  containers:\n  - name: image\n    image: r.example/app:1\n---\nimage:\n  registry: quay.io\n  repository: x/y\n  tag: \"3\"\n---\na: &x\n  image: z\nb: *x\n";
        let expected =
            ["docker.io/library/busybox:1", "r.example/app:1", "quay.io/x/y:3", "docker.io/library/z:latest"];
        assert_eq!(names(&images_in("pod.yml", yaml).unwrap()), expected);
        assert_eq!(names(&images_in("a.json", "{\"image\": \"a:1\"}").unwrap()), ["docker.io/library/a:1"]);
        assert!(images_in("t.yaml", "image: {{ .Values.x }}").is_err());
        assert!(images_in("t.yaml", "image: \"{{ .Values.x }}\"").unwrap_err().contains("helm template"));
    }

    #[test]
    fn a_pinned_image_keeps_its_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let text = "version = 1\n[[rule]]\nname = \"k8s\"\nimages-from = \"list.txt\"\nto = \"docker://m.example/{path}\"\n";
        let mut policy = super::super::parse(text).unwrap();
        let list = format!("nginx:1.27@{digest}\nredis:7\n");
        policy.read_images(&mut |_| Ok(vec![("list.txt".into(), list.clone())])).unwrap();
        let [plain, pinned] = &policy.rules[..] else { panic!("{:?}", policy.rules) };
        assert_eq!(plain.from[0].value.to_string(), "docker://docker.io/library/redis:7");
        assert_eq!(pinned.from[0].value.to_string(), "docker://docker.io/library/nginx");
        assert_eq!(pinned.tags.as_ref().unwrap().pins["1.27"].to_string(), digest);
        let nothing = policy.clone().read_images(&mut |_| Ok(Vec::new()));
        assert!(nothing.is_ok());
        let mut policy = super::super::parse(text).unwrap();
        let problems = policy.read_images(&mut |_| Ok(Vec::new())).unwrap_err();
        assert_eq!(&text[problems[0].span.clone().unwrap()], "\"list.txt\"");
    }
}
