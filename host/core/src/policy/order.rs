//! Order at a rule's destination: what is deleted there, and what is kept of an image that is replaced.

use super::raw::{Table, boolean, integer, one_or_many, string};
use super::{Backup, OnImmutable, Order, Problem, Prune, PruneLimit, Spanned};
use toml::{Spanned as TomlSpanned, de::DeValue};

type Value<'a> = TomlSpanned<DeValue<'a>>;

impl PruneLimit {
    /// Reads a limit as people write it: a number of tags, or `all`. `None` means that it is neither.
    ///
    /// ```
    /// use dray_core::policy::PruneLimit;
    ///
    /// assert_eq!(PruneLimit::read("12"), Some(PruneLimit::Tags(12)));
    /// assert_eq!(PruneLimit::read("all"), Some(PruneLimit::All));
    /// assert_eq!(PruneLimit::read("-1"), None);
    /// ```
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "all" => Some(PruneLimit::All),
            number => number.parse().ok().map(PruneLimit::Tags),
        }
    }
}

impl Backup {
    /// Reads a template. Fails with a sentence for people if it cannot name a tag of its own for each image.
    ///
    /// # Errors
    /// Fails if the template lacks `{tag}` or anything beside it, or does not make a tag.
    pub fn read(text: &str) -> Result<Self, String> {
        let backup = Backup(text.to_owned());
        let sample = backup.fill("tag", 0, "0123456789ab");
        if !text.contains("{tag}") {
            return Err("`backup` needs {tag}: backups of different tags would replace each other".into());
        }
        if sample == "tag" {
            return Err("`backup` names the tag itself, which is about to be replaced".into());
        }
        if sample.contains(['{', '}']) {
            return Err("`backup` knows {tag}, {date}, {time} and {digest}".into());
        }
        if !crate::is_tag(&sample) {
            return Err(format!("`backup` makes `{sample}`, which is no tag"));
        }
        Ok(backup)
    }

    /// The tag under which an image is kept. `seconds` is the time since 1970-01-01T00:00:00Z, and `digest` the beginning
    /// of the digest that is kept. A tag that would be longer than 128 characters is shortened at the place of `{tag}`.
    ///
    /// ```
    /// let backup = dray_core::policy::Backup::read("{tag}-before-{date}").unwrap();
    /// assert_eq!(backup.fill("1.0", 86_400, "0123456789ab"), "1.0-before-1970-01-02");
    /// assert_eq!(backup.fill(&"x".repeat(128), 86_400, "0123456789ab").len(), 128);
    /// ```
    pub fn fill(&self, tag: &str, seconds: i64, digest: &str) -> String {
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        let rest = self
            .0
            .replace("{date}", &time.strftime("%Y-%m-%d").to_string())
            .replace("{time}", &time.strftime("%H%M%S").to_string())
            .replace("{digest}", digest);
        // 128 is the most that a tag may have (distribution specification, "Pulling manifests").
        let room = 128usize.saturating_sub(rest.replace("{tag}", "").len());
        let most = room / rest.matches("{tag}").count().max(1);
        rest.replace("{tag}", tag.get(..most).unwrap_or(tag))
    }

    /// Whether a tag may be a backup that this template made: a date, a time and a digest have their shapes, and a second
    /// backup of one name has a number behind it.
    ///
    /// ```
    /// let backup = dray_core::policy::Backup::read("{tag}-{date}").unwrap();
    /// assert!(backup.made("1.0-2026-01-31") && backup.made("1.0-2026-01-31-2"));
    /// assert!(!backup.made("1.0-alpine"));
    /// ```
    pub fn made(&self, tag: &str) -> bool {
        let numbered = tag.rsplit_once('-').filter(|(_, number)| {
            (1..=2).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit())
        });
        has_shape(&self.0, tag) || numbered.is_some_and(|(name, _)| has_shape(&self.0, name))
    }
}

/// Whether a text has the shape of a template.
fn has_shape(template: &str, text: &str) -> bool {
    let Some(first) = template.chars().next() else { return text.is_empty() };
    if let Some(rest) = template.strip_prefix("{tag}") {
        // A tag has at least one character, and what follows decides how many.
        return (1..=text.len()).any(|end| text.is_char_boundary(end) && has_shape(rest, &text[end..]));
    }
    let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let date = |text: &str| text.split('-').map(str::len).eq([4, 2, 2]) && digits(&text.replace('-', ""));
    let hex = |text: &str| text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    for (name, length) in [("{date}", 10), ("{time}", 6), ("{digest}", 12)] {
        let Some(rest) = template.strip_prefix(name) else { continue };
        let Some(part) = text.get(..length) else { return false };
        let fits = match name {
            "{date}" => date(part),
            "{time}" => digits(part),
            _ => hex(part),
        };
        return fits && has_shape(rest, &text[length..]);
    }
    text.strip_prefix(first).is_some_and(|text| has_shape(&template[first.len_utf8()..], text))
}

impl std::fmt::Display for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the keys of a rule.
pub(super) fn order(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> Order {
    let prune = entry.take("prune").map(|value| prune(value, problems));
    let limit = entry.take("prune-limit");
    let limit = limit.map(|value| self::limit(value, "prune-limit", problems)).unwrap_or_default();
    let protect = entry.take("protect").map(one_or_many).unwrap_or_default();
    let protect: Vec<String> =
        protect.into_iter().filter_map(|value| Some(string(value, problems)?.value)).collect();
    let backup = backup(entry, problems);
    let words = [("fail", OnImmutable::Fail), ("skip", OnImmutable::Skip)];
    let immutable = super::rule::word(entry.take("immutable"), &words, problems).unwrap_or_default();
    let (is_said, prune) = (prune.is_some(), prune.unwrap_or_default());
    Order { prune, is_said, limit, protect, backup, immutable }
}

fn prune(value: &Value<'_>, problems: &mut Vec<Problem>) -> Prune {
    match value.get_ref().as_str() {
        Some("all") => Prune::All,
        Some(other) => {
            let text = format!("`prune` is true, false or \"all\", and not {other:?}");
            problems.push(Problem::new(text, value.span()));
            Prune::No
        }
        None => match boolean(value, problems) {
            Some(true) => Prune::Own,
            _ => Prune::No,
        },
    }
}

/// Reads a limit of deletions, which has this key.
pub(super) fn limit(value: &Value<'_>, key: &str, problems: &mut Vec<Problem>) -> PruneLimit {
    let found = match value.get_ref().as_str() {
        Some(text) => PruneLimit::read(text),
        None => integer(value, problems).and_then(|number| PruneLimit::read(&number.value.to_string())),
    };
    found.unwrap_or_else(|| {
        let help = "write how many tags of a repository may go at once, or \"all\"";
        let text = format!("`{key}` is a number of tags, or \"all\"");
        problems.push(Problem::new(text, value.span()).help(help));
        PruneLimit::default()
    })
}

/// Reads the template of backups.
pub(super) fn backup(entry: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Backup> {
    let text: Spanned<String> = string(entry.take("backup")?, problems)?;
    match Backup::read(&text.value) {
        Ok(backup) => Some(backup),
        Err(why) => {
            problems.push(Problem::new(why, text.span).help("write backup = \"{tag}-before-{date}\""));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_known_by_its_shape() {
        for (template, tag, made) in [
            ("{tag}-before-{date}", "latest-before-2026-11-27", true),
            ("{tag}-before-{date}", "a-b-before-2026-11-27-12", true),
            ("{tag}-before-{date}", "latest-before-yesterday", false),
            ("{tag}-before-{date}", "-before-2026-11-27", false),
            ("{tag}-{date}", "1.2-alpine", false),
            ("{tag}-{date}", "1.2-2026-1-27", false),
            ("{tag}.{digest}", "1.2", false),
            ("{tag}.{digest}", "1.2.0123456789ab", true),
            ("old-{time}-{tag}", "old-235959-1.0", true),
            ("old-{time}-{tag}", "old-new-1.0", false),
            ("{tag}-{tag}.bak", "a-b.bak", true),
        ] {
            assert_eq!(Backup::read(template).unwrap().made(tag), made, "{template} {tag}");
        }
        let backup = Backup::read("{tag}-before-{date}").unwrap();
        assert!(backup.made(&backup.fill("1.0", 1_800_000_000, "0123456789ab")));
    }
}
