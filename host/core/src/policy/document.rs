//! The texts of a policy as one document: TOML, versions, included files and variables.

use super::raw::{integer, one_or_many, string};
use super::vars::{self, Variables};
use super::{PolicyError, Problem, Spanned};
use toml::de::{DeTable, DeValue};

/// The files that a policy includes: paths and globs, with the variables of this text and of the environment replaced.
///
/// # Errors
/// Fails if the text is no TOML, or `include` is no list of strings.
pub fn includes(text: &str, environment: Variables<'_>) -> Result<Vec<Spanned<String>>, PolicyError> {
    let mut problems = Vec::new();
    let padded = padded(&[text]);
    let root = document(&padded[0], &mut problems);
    let mut found = Vec::new();
    // The rest of the text may use variables of the file that includes it.
    let wanted = |key: &str| matches!(key, "include" | "vars");
    let mut root: DeTable<'_> = root.into_iter().filter(|(key, _)| wanted(key.get_ref())).collect();
    if problems.is_empty() {
        vars::expand(&mut root, environment, &mut problems);
    }
    if let Some(value) = root.get("include") {
        for item in one_or_many(value) {
            found.extend(string(item, &mut problems));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(PolicyError(problems)) }
}

/// The texts, each behind as many spaces as all texts before it have bytes, and one for each of them: so their positions
/// count through.
pub(super) fn padded(texts: &[&str]) -> Vec<String> {
    let mut start = 0;
    let mut padded = Vec::new();
    for text in texts {
        // A byte order mark may only begin a text.
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => format!("{}{rest}", " ".repeat(text.len() - rest.len())),
            None => (*text).to_owned(),
        };
        padded.push(format!("{}{text}", " ".repeat(start)));
        // One more, so that the end of a text is not the beginning of the next one.
        start += text.len() + 1;
    }
    padded
}

/// Reads the documents of a policy as one, with its variables replaced. `None` means that one of them is no TOML.
pub(super) fn read<'a>(
    padded: &'a [String],
    environment: Variables<'_>,
    problems: &mut Vec<Problem>,
) -> Option<DeTable<'a>> {
    let documents: Vec<DeTable<'a>> = padded.iter().map(|text| document(text, problems)).collect();
    if !problems.is_empty() {
        return None;
    }
    for (number, document) in documents.iter().enumerate() {
        // A text begins one behind the end of the one before it.
        let start = number.checked_sub(1).map_or(0, |before| padded[before].len() + 1);
        check_version(document, start, problems);
    }
    let mut root = merged(documents, problems);
    vars::expand(&mut root, environment, problems);
    Some(root)
}

/// Refuses a document of another version of the language, or of none. `start` is where its text begins.
fn check_version(document: &DeTable<'_>, start: usize, problems: &mut Vec<Problem>) {
    match document.get("version") {
        Some(value) => {
            if let Some(version) = integer(value, problems)
                && version.value != 1
            {
                problems.push(
                    Problem::new(
                        format!("version {} of the policy is not known", version.value),
                        version.span,
                    )
                    .help("this dray reads version = 1"),
                );
            }
        }
        None => problems.push(
            Problem::new("the policy does not say its version", start..start)
                .help("begin it with `version = 1`"),
        ),
    }
}

/// Reads a text as TOML, and says what is wrong with it.
fn document<'a>(text: &'a str, problems: &mut Vec<Problem>) -> DeTable<'a> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        // Of a text that the parser skipped, it tells more than once.
        let help = error.message().contains("escape").then(|| {
            "in double quotes a backslash begins an escape: write the text in single quotes, '^v1\\.[0-9]'".into()
        });
        problems.push(Problem { message: error.message().into(), span: error.span(), help });
    }
    document.into_inner()
}

/// Brings the documents of a policy together. Rules follow each other; tables of names are joined.
fn merged<'a>(documents: Vec<DeTable<'a>>, problems: &mut Vec<Problem>) -> DeTable<'a> {
    let mut root = DeTable::new();
    for document in documents {
        for (key, value) in document {
            let Some(before) = root.get_mut(&key) else {
                root.insert(key, value);
                continue;
            };
            match (key.get_ref().as_ref(), before.get_mut(), value.into_inner()) {
                ("rule" | "retain" | "observe", DeValue::Array(before), DeValue::Array(more)) => {
                    more.into_iter().for_each(|rule| before.push(rule));
                }
                ("registry" | "plugin" | "vars", DeValue::Table(before), DeValue::Table(more)) => {
                    for (name, value) in more {
                        let (span, shown) = (name.span(), name.get_ref().to_string());
                        if before.insert(name, value).is_some() {
                            problems.push(
                                Problem::new(format!("`{shown}` is declared in another file, too"), span)
                                    .help("declare it once, in the file that includes the others"),
                            );
                        }
                    }
                }
                ("version" | "include", ..) => {}
                ("rule" | "retain" | "observe", _, wrong) => problems.push(Problem::new(
                    format!("expected a list of tables, found {}", wrong.type_str()),
                    key.span(),
                )),
                (name, ..) => problems.push(
                    Problem::new(format!("`{name}` is declared in another file, too"), key.span())
                        .help("declare it once, in the file that includes the others"),
                ),
            }
        }
    }
    root
}
