//! A plan as people read it: by rule and repository, with what changes line by line and all else as counts.

use crate::output::{bytes, counted, line};
use dray_core::{Action, Endpoint, Reason, without_tag};
use dray_engine::Planned;
use std::collections::{BTreeMap, HashMap};

/// What a plan holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Totals {
    pub copy: u64,
    pub delete: u64,
    pub unchanged: u64,
    pub dropped: u64,
    pub failed: u64,
    /// Of `copy`, those whose tag names something else at the destination now.
    pub overwritten: u64,
    /// Bytes of blobs that travel at most, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Totals {
    /// Counts an item, and the bytes that it brings.
    pub fn add(&mut self, planned: &Planned, size: Option<u64>) {
        if let Some(size) = size {
            *self.size.get_or_insert(0) += size;
        }
        match planned {
            Planned::Copy(planned) if planned.copy.action == Action::Copy => {
                self.copy += 1;
                self.overwritten += u64::from(matches!(planned.copy.reason, Reason::Moved { .. }));
            }
            Planned::Copy(_) => self.unchanged += 1,
            Planned::Delete(_) => self.delete += 1,
            Planned::Dropped { .. } => self.dropped += 1,
            Planned::Failed { .. } => self.failed += 1,
        }
    }
}

/// What is to become of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    New,
    Changed,
    Unchanged,
    Deleted,
    Dropped,
    Failed,
}

impl Mark {
    /// Its sign, and its colour as a terminal takes it (ECMA-48, 8.3.117).
    fn sign(self) -> (char, &'static str) {
        match self {
            Mark::New => ('+', "32"),
            Mark::Changed => ('~', "33"),
            Mark::Unchanged => ('=', "2"),
            Mark::Deleted => ('x', "31"),
            Mark::Dropped => ('-', "2"),
            Mark::Failed => ('!', "31"),
        }
    }
}

/// One line: a tag, what is to become of it, and why.
struct Entry {
    mark: Mark,
    tag: String,
    /// Where it goes, as a whole.
    destination: String,
    why: String,
    help: Option<String>,
}

/// What a rule does with one repository.
#[derive(Default)]
struct Group {
    /// Where its tags go. Several repositories, if `{tag}` is in the template.
    destinations: Vec<String>,
    entries: Vec<Entry>,
    unchanged: u64,
    /// By what dropped them.
    dropped: BTreeMap<String, u64>,
}

/// A plan that is being collected.
#[derive(Default)]
pub struct View {
    /// Whether every tag is listed, and not only those that change.
    explain: bool,
    order: Vec<(String, String)>,
    groups: HashMap<(String, String), Group>,
    totals: Totals,
}

/// A filter with its configuration, as people read it: `semver range = "1"`.
fn told(by: &str) -> String {
    let Some((name, config)) = by.split_once(' ') else { return by.to_owned() };
    let Ok(serde_json::Value::Object(config)) = serde_json::from_str(config) else { return by.to_owned() };
    let keys: Vec<String> = config.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{name} {}", keys.join(", "))
}

/// The repository of a reference, and its tag or digest.
fn parted(display: &str, reference: Option<&str>) -> (String, String) {
    let Some(reference) = reference else { return (display.to_owned(), String::new()) };
    (without_tag(display, reference).unwrap_or(display).to_owned(), reference.to_owned())
}

/// A tag, or the beginning of a digest.
fn shortened(reference: &str) -> String {
    reference.parse::<dray_core::Digest>().map_or(reference.to_owned(), |digest| digest.short())
}

/// As [`parted`], for a text of which nothing else is known.
fn guessed(display: &str) -> (String, String) {
    let start = display.rfind('/').map_or(0, |at| at + 1);
    let digest = ["@sha256:", "@sha512:"].iter().find_map(|sign| display.rfind(sign));
    match digest.or(display[start..].rfind(':').map(|at| start + at)) {
        // The scheme's own colon parts nothing.
        Some(at) if display[..at].contains(':') => (display[..at].to_owned(), display[at + 1..].to_owned()),
        _ => (display.to_owned(), String::new()),
    }
}

impl View {
    pub fn new(explain: bool) -> Self {
        View { explain, ..View::default() }
    }

    /// Takes in an item.
    pub fn add(&mut self, planned: &Planned, size: Option<u64>) {
        self.totals.add(planned, size);
        let part = |end: &Endpoint| parted(&end.display, end.reference.as_deref());
        match planned {
            Planned::Copy(planned) => {
                let copy = &planned.copy;
                let ((source, read), (destination, tag)) = (part(&copy.source), part(&copy.destination));
                let tag = match (tag.is_empty(), read.is_empty() || read == tag) {
                    (true, _) => read,
                    (false, true) => tag,
                    // Another name than at the source: of a fixed tag, or of a pin.
                    (false, false) => format!("{} -> {tag}", shortened(&read)),
                };
                let (mark, why) = match (&copy.reason, copy.action) {
                    (Reason::New, Action::Copy) => (Mark::New, String::new()),
                    (Reason::Moved { from }, Action::Copy) => {
                        (Mark::Changed, format!("{} -> {}", from.short(), copy.descriptor.digest.short()))
                    }
                    (reason, Action::Copy) => (Mark::Changed, reason.to_string()),
                    (reason, _) => (Mark::Unchanged, reason.to_string()),
                };
                let form = match copy.form.is_unchanged() || copy.action != Action::Copy {
                    true => String::new(),
                    false => copy.form.to_string(),
                };
                let kept =
                    copy.backup.as_ref().map(|backup| format!("backed up as {backup}")).unwrap_or_default();
                let why = [size.map(bytes).unwrap_or_default(), why, form, kept]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("; ");
                self.entry(
                    &copy.rule,
                    source,
                    destination,
                    Entry { mark, tag, destination: copy.destination.display.clone(), why, help: None },
                );
            }
            Planned::Delete(planned) => {
                let deletion = &planned.deletion;
                let ((source, _), (destination, tag)) = (part(&deletion.source), part(&deletion.destination));
                let kept = deletion.backup.as_ref().map(|backup| format!("; backed up as {backup}"));
                let why = format!(
                    "delete {}: {}{}",
                    deletion.digest.short(),
                    deletion.reason(),
                    kept.unwrap_or_default()
                );
                let shown = deletion.destination.display.clone();
                let entry = Entry { mark: Mark::Deleted, tag, destination: shown, why, help: None };
                self.entry(&deletion.rule, source, destination, entry);
            }
            Planned::Dropped { rule, source, by, why } => {
                let (repository, tag) = part(source);
                let by = told(by);
                let why = match why {
                    Some(why) => format!("{why} (dropped by {by})"),
                    None => format!("dropped by {by}"),
                };
                let entry = Entry { mark: Mark::Dropped, tag, destination: String::new(), why, help: None };
                *self.group(rule, repository.clone()).dropped.entry(by).or_default() += 1;
                self.entry(rule, repository, String::new(), entry);
            }
            Planned::Failed { rule, source, destination, error, .. } => {
                let (repository, tag) = guessed(source);
                let entry = Entry {
                    mark: Mark::Failed,
                    tag,
                    destination: destination.clone(),
                    why: format!("failed to {error}"),
                    help: error.help.clone(),
                };
                self.entry(rule, repository, guessed(destination).0, entry);
            }
        }
    }

    fn group(&mut self, rule: &str, source: String) -> &mut Group {
        let key = (rule.to_owned(), source);
        if !self.groups.contains_key(&key) {
            self.order.push(key.clone());
        }
        self.groups.entry(key).or_default()
    }

    fn entry(&mut self, rule: &str, source: String, destination: String, entry: Entry) {
        let explain = self.explain;
        let group = self.group(rule, source);
        if !destination.is_empty()
            && !group.destinations.contains(&destination)
            && group.destinations.len() < 2
        {
            group.destinations.push(destination);
        }
        group.unchanged += u64::from(entry.mark == Mark::Unchanged);
        if explain || !matches!(entry.mark, Mark::Unchanged | Mark::Dropped) {
            group.entries.push(entry);
        }
    }

    /// The whole plan, in the order in which the repositories came.
    pub fn text(&self, colours: bool) -> String {
        let mut out = String::new();
        for key in &self.order {
            let (rule, source) = key;
            if let Some(group) = self.groups.get(key) {
                group.write(rule, source, self.explain, colours, &mut out);
            }
        }
        out.push_str(&line(&self.summary()));
        out
    }

    fn summary(&self) -> String {
        let Totals { copy, delete, unchanged, dropped, failed, overwritten, size } = self.totals;
        let size = size.map(|size| format!(", at most {}", bytes(size))).unwrap_or_default();
        let kinds = match overwritten {
            0 => String::new(),
            _ => format!(" ({} new, {overwritten} overwritten)", copy - overwritten),
        };
        let deletions = match delete {
            0 => String::new(),
            count => format!(", {} to delete", counted(count, "tag")),
        };
        format!(
            "{} to copy{kinds}{size}{deletions}, {unchanged} unchanged, {dropped} dropped by filters, {failed} failed",
            counted(copy, "image")
        )
    }
}

/// Columns in which tags are aligned, at most.
const ALIGNED: usize = 28;

impl Group {
    fn write(&self, rule: &str, source: &str, explain: bool, colours: bool, out: &mut String) {
        // What changes nothing is a line, and not a paragraph.
        if self.entries.is_empty() && self.unchanged == 0 && self.dropped.is_empty() {
            return;
        }
        let bold = |text: &str| if colours { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() };
        let to = match &self.destinations[..] {
            [] => String::new(),
            // What is deleted because nothing keeps it comes from nowhere.
            [one] if one == source => String::new(),
            [one] => format!(" -> {one}"),
            _ => " -> several repositories".to_owned(),
        };
        out.push_str(&format!("{}{}", bold(&clean(rule)), line(&format!(": {source}{to}"))));
        let width =
            self.entries.iter().map(|entry| entry.tag.chars().count()).max().unwrap_or(0).min(ALIGNED);
        for entry in &self.entries {
            let (sign, colour) = entry.mark.sign();
            let name = match (self.destinations.len(), entry.tag.is_empty()) {
                (2.., _) if entry.mark != Mark::Failed && entry.mark != Mark::Dropped => &entry.destination,
                (_, true) => &entry.destination,
                _ => &entry.tag,
            };
            let text = clean(format!("{sign} {name:width$}  {}", entry.why).trim_end());
            match colours {
                true => out.push_str(&format!("  \u{1b}[{colour}m{text}\u{1b}[0m\n")),
                false => out.push_str(&format!("  {text}\n")),
            }
            if let Some(help) = &entry.help {
                out.push_str(&line(&format!("    help: {help}")));
            }
        }
        if !explain && self.unchanged > 0 {
            out.push_str(&line(&format!("  = {} unchanged", self.unchanged)));
        }
        let dropped: u64 = self.dropped.values().sum();
        if !explain && dropped > 0 {
            let by: Vec<String> = match self.dropped.len() {
                1 => self.dropped.keys().map(|by| format!(" by {by}")).collect(),
                _ => self.dropped.iter().map(|(by, count)| format!("{count} by {by}")).collect(),
            };
            let colon = if self.dropped.len() > 1 { ": " } else { "" };
            out.push_str(&line(&format!("  - {dropped} dropped{colon}{}", by.join(", "))));
        }
    }
}

/// A text of strangers without what steers a terminal.
fn clean(text: &str) -> String {
    line(text).trim_end_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::{Error, Kind};

    fn dropped(tag: &str, by: &str, why: Option<&str>) -> Planned {
        let display = format!("docker://r.example/a:{tag}");
        let source = Endpoint {
            place: "docker:r.example".into(),
            repository: "a".into(),
            reference: Some(tag.into()),
            display,
        };
        Planned::Dropped { rule: "a".into(), source, by: by.into(), why: why.map(str::to_owned) }
    }

    fn failed(source: &str) -> Planned {
        Planned::Failed {
            rule: "a".into(),
            source: source.into(),
            destination: "docker://m.example/a".into(),
            error: Error::new(Kind::NotFound, "resolve it: there is no such image").help("look again"),
            deletes: false,
        }
    }

    #[test]
    fn what_does_not_change_is_counted_and_explained_on_demand() {
        let items = [
            dropped("1-rc", "semver", None),
            dropped("2-rc", "semver", Some("a prerelease")),
            dropped("old", "latest", None),
            failed("docker://r.example/a:9"),
            failed("docker://r.example:5000/b"),
        ];
        let shown = |explain| {
            let mut view = View::new(explain);
            items.iter().for_each(|item| view.add(item, None));
            view.text(false)
        };
        assert_eq!(
            shown(false),
            "a: docker://r.example/a -> docker://m.example/a\n\
             \x20 ! 9  failed to resolve it: there is no such image\n\
             \x20   help: look again\n\
             \x20 - 3 dropped: 1 by latest, 2 by semver\n\
             a: docker://r.example:5000/b -> docker://m.example/a\n\
             \x20 ! docker://m.example/a  failed to resolve it: there is no such image\n\
             \x20   help: look again\n\
             0 images to copy, 0 unchanged, 3 dropped by filters, 2 failed\n"
        );
        let all = shown(true);
        assert!(all.contains("  - 1-rc  dropped by semver\n") && !all.contains("3 dropped:"), "{all}");
        assert!(all.contains("  - 2-rc  a prerelease (dropped by semver)\n"), "{all}");
    }

    #[test]
    fn names_of_strangers_steer_no_terminal() {
        let mut view = View::new(true);
        view.add(&dropped("\u{1b}[2J", "semver", None), None);
        let text = view.text(false);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn references_are_parted() {
        for (display, repository, tag) in [
            ("docker://r.example:5000/a:1", "docker://r.example:5000/a", "1"),
            ("docker://r.example:5000/a", "docker://r.example:5000/a", ""),
            ("oci:images:1", "oci:images", "1"),
            ("oci:images", "oci:images", ""),
            ("oci:images@sha256:0", "oci:images", "sha256:0"),
        ] {
            assert_eq!(guessed(display), (repository.to_owned(), tag.to_owned()), "{display}");
        }
        assert_eq!(parted("docker://r/a@sha256:0", Some("sha256:0")).0, "docker://r/a");
    }
}
