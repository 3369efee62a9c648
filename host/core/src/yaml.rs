//! YAML as other tools' files have it: values with the lines on which they stand.

use saphyr_parser::{Event, Parser, ScalarStyle};
use std::{collections::HashMap, fmt};

/// The most values of one file. Aliases (`*name`) count each time, so that a small file cannot name any number.
const VALUES: usize = 1_000_000;
/// How deep values may lie in each other.
const DEPTH: usize = 64;

/// A value with its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Yaml {
    /// The line on which it begins, from 1.
    pub line: usize,
    /// The value.
    pub value: YamlValue,
}

/// A value of YAML.
#[derive(Clone, Debug, PartialEq)]
pub enum YamlValue {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A text, or a number as it is written: `1.10` is a tag in most files, and not 1.1.
    Text(String),
    /// A list.
    List(Vec<Yaml>),
    /// Keys, which are texts, with their values, in the order of the file.
    Map(Vec<(String, Yaml)>),
}

/// Why a text is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct YamlError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub text: String,
}

impl Yaml {
    /// Reads the documents of a text.
    ///
    /// # Errors
    /// Fails if it is no YAML, has a key twice, has keys that are no texts, or is unreasonably large.
    ///
    /// ```
    /// use dray_core::Yaml;
    ///
    /// let [document] = &Yaml::documents("a: [x, 2]").unwrap()[..] else { panic!() };
    /// assert_eq!(document.get("a").unwrap().items()[0].text(), Some("x"));
    /// assert_eq!(document.get("a").unwrap().items()[1].text(), Some("2"));
    /// ```
    pub fn documents(text: &str) -> Result<Vec<Yaml>, YamlError> {
        let mut reading = Reading::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| YamlError {
                line: error.marker().line(),
                text: format!("it is no YAML: {}", error.info()),
            })?;
            reading.take(event, span.start.line().max(1))?;
        }
        Ok(reading.documents)
    }

    /// The value of a key. `None` means that it is not there, is nothing, or that this is no map.
    pub fn get(&self, key: &str) -> Option<&Yaml> {
        let found = self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value);
        found.filter(|value| value.value != YamlValue::Null)
    }

    /// The entries of a map. Anything else has none.
    pub fn entries(&self) -> &[(String, Yaml)] {
        match &self.value {
            YamlValue::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list. Anything else has none.
    pub fn items(&self) -> &[Yaml] {
        match &self.value {
            YamlValue::List(items) => items,
            _ => &[],
        }
    }

    /// The text. `None` means that it is something else.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            YamlValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// True or false. `None` means that it is something else.
    pub fn bool(&self) -> Option<bool> {
        match self.value {
            YamlValue::Bool(value) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Yaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            YamlValue::Null => f.write_str("null"),
            YamlValue::Bool(value) => value.fmt(f),
            YamlValue::Text(text) => f.write_str(text),
            YamlValue::List(items) => {
                f.write_str("[")?;
                for (number, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if number > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            YamlValue::Map(entries) => {
                f.write_str("{")?;
                for (number, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if number > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A list or a map that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    value: YamlValue,
    /// The key whose value comes next.
    key: Option<String>,
    /// Number of values in it, with itself.
    size: usize,
}

#[derive(Default)]
struct Reading {
    documents: Vec<Yaml>,
    open: Vec<Open>,
    /// Values with an anchor, and how many values each of them is.
    anchors: HashMap<usize, (Yaml, usize)>,
    values: usize,
}

impl Reading {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = match (style, text.as_ref()) {
                    (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => YamlValue::Null,
                    (ScalarStyle::Plain, "true" | "True" | "TRUE") => YamlValue::Bool(true),
                    (ScalarStyle::Plain, "false" | "False" | "FALSE") => YamlValue::Bool(false),
                    _ => YamlValue::Text(text.into_owned()),
                };
                self.add(Yaml { line, value }, 1, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((value, size)) => self.add(value, size, 0),
                None => Err(YamlError { line, text: "it names a value that is not complete".into() }),
            },
            Event::SequenceStart(anchor, _) => self.begin(YamlValue::List(Vec::new()), anchor, line),
            Event::MappingStart(anchor, _) => self.begin(YamlValue::Map(Vec::new()), anchor, line),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { line, anchor, value, size, .. }) => self.add(Yaml { line, value }, size, anchor),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, value: YamlValue, anchor: usize, line: usize) -> Result<(), YamlError> {
        if self.open.len() >= DEPTH {
            return Err(YamlError { line, text: "values lie too deep in each other".into() });
        }
        self.open.push(Open { line, anchor, value, key: None, size: 1 });
        Ok(())
    }

    /// Adds a value that is complete to what it is in.
    fn add(&mut self, value: Yaml, size: usize, anchor: usize) -> Result<(), YamlError> {
        let wrong = |line: usize, text: String| Err(YamlError { line, text });
        self.values = self.values.saturating_add(size);
        if self.values > VALUES * DEPTH || size > VALUES {
            return wrong(value.line, "the file names too many values".into());
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(value);
            return Ok(());
        };
        open.size = open.size.saturating_add(size);
        match &mut open.value {
            YamlValue::List(items) => items.push(value),
            YamlValue::Map(entries) => match open.key.take() {
                Some(key) => entries.push((key, value)),
                None => {
                    let key = match &value.value {
                        YamlValue::List(_) | YamlValue::Map(_) => {
                            return wrong(value.line, "a key is no text".into());
                        }
                        _ => value.to_string(),
                    };
                    // Merging (`<<`) is no part of YAML 1.2, and two values of one key are a mistake.
                    if entries.iter().any(|(name, _)| *name == key) {
                        return wrong(value.line, format!("it has the key `{}` twice", key.escape_debug()));
                    }
                    open.key = Some(key);
                }
            },
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_lines_and_their_writing() {
        let documents =
            Yaml::documents("a: &x\n  - 1.10\n  - x\nb: true\nd: *x\n---\nc: ~\ne: 'true'\n").unwrap();
        let a = documents[0].get("a").unwrap();
        assert_eq!((a.items()[0].line, a.items()[0].text()), (2, Some("1.10")));
        assert_eq!(documents[0].get("b").unwrap().bool(), Some(true));
        assert_eq!(documents[0].get("d").unwrap(), a);
        assert!(documents[1].get("c").is_none());
        assert_eq!(documents[1].get("e").unwrap().text(), Some("true"));
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let bomb = (0..40).fold("a0: &a0 [x]\n".to_owned(), |text, number| {
            format!("{text}a{next}: &a{next} [*a{number}, *a{number}]\n", next = number + 1)
        });
        for (text, line) in [
            ("a: 1\nb: [", 3),
            ("a: 1\na: 2", 2),
            ("[a]: 1", 1),
            ("a: *x", 1),
            ("a: &x [*x]", 1),
            (&"[".repeat(100), 1),
            (&bomb, 21),
        ] {
            let error = Yaml::documents(text).unwrap_err();
            assert!(error.line.abs_diff(line) <= 1, "{text:.50}: {error}");
        }
    }
}
