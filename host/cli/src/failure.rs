//! What ends a command, in the words of people.

use crate::{
    FAILED, WRONG,
    mask::masked,
    output::{colours, print_aside, tell},
};
use dray_core::policy::{PolicyError, Problem};
use dray_core::{harmless, misleads, without_secrets};
use dray_engine::{Error, Kind};
use dray_session::PolicyTexts;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode,
};
use serde::Serialize;
use std::{fmt, ops::Range};

/// Mistakes of a policy that are shown: nobody reads more at once.
const SHOWN: usize = 20;

/// Why a command did not do what it was told.
pub enum Failure {
    /// The policy is wrong.
    Policy {
        /// Its files.
        texts: PolicyTexts,
        /// What is wrong.
        error: PolicyError,
    },
    /// The command line is wrong.
    Usage(Error),
    /// Something failed.
    Failed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}

impl Failure {
    /// A file that the command line names and that cannot be used.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure::Usage(Error::new(Kind::Invalid, text))
    }

    /// The error. `None` means that there may be several, in a policy.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Failure::Policy { .. } => None,
            Failure::Usage(error) | Failure::Failed(error) => Some(error),
        }
    }

    /// The same failure, with what was being done.
    pub fn of(self, doing: impl Fn() -> String) -> Self {
        let within = |error: Error| error.context(doing());
        match self {
            Failure::Usage(error) => Failure::Usage(within(error)),
            Failure::Failed(error) => Failure::Failed(within(error)),
            policy => policy,
        }
    }

    pub fn code(&self) -> u8 {
        match self {
            Failure::Policy { .. } | Failure::Usage(_) => WRONG,
            Failure::Failed(_) => FAILED,
        }
    }

    pub fn print(&self) {
        match self {
            Failure::Policy { texts, error } => {
                for problem in error.0.iter().take(SHOWN) {
                    print(&Shown::new(texts, problem, Severity::Error));
                }
                if error.0.len() > SHOWN {
                    tell!("error: and {} mistakes more", error.0.len() - SHOWN);
                }
            }
            Failure::Usage(error) | Failure::Failed(error) => {
                tell!("error: failed to {error}");
                if let Some(help) = &error.help {
                    tell!("  help: {help}");
                }
            }
        }
    }
}

fn print(diagnostic: &dyn Diagnostic) {
    let theme = if colours() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = GraphicalReportHandler::new_themed(theme).render_report(&mut text, diagnostic);
    // Its lines are the renderer's; what a problem says was made harmless before.
    let ours = |character: char| character == '\n' || character == '\u{1b}';
    let safe = text.trim_end().chars().filter(|character| ours(*character) || !misleads(*character));
    print_aside(&format!("{}\n", safe.collect::<String>()));
}

/// Shows what is probably a mistake in a policy.
pub fn warn(texts: &PolicyTexts, problem: &Problem) {
    print(&Shown::new(texts, problem, Severity::Warning));
}

/// A problem for machines.
#[derive(Serialize)]
pub struct Mistake {
    message: String,
    /// The file, if the problem is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// Where it begins, counted from 1; the column counts characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Mistake {
    pub fn new(texts: &PolicyTexts, problem: &Problem) -> Self {
        let at = problem.span.as_ref().and_then(|span| texts.at(span));
        let before = at.as_ref().and_then(|(text, span)| text.text.get(..span.start));
        Mistake {
            message: harmless(&without_secrets(&problem.message), 4096),
            line: before.map(|before| before.matches('\n').count() + 1),
            column: before.map(|before| before.rsplit('\n').next().unwrap_or_default().chars().count() + 1),
            file: at.map(|(text, _)| harmless(&text.name, 4096)),
            help: problem.help.as_ref().map(|help| harmless(&without_secrets(help), 4096)),
        }
    }
}

/// A problem and the text that it is in.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: NamedSource<String>,
    /// Where it is in that text.
    span: Option<Range<usize>>,
    severity: Severity,
}

impl<'a> Shown<'a> {
    fn new(texts: &PolicyTexts, problem: &'a Problem, severity: Severity) -> Self {
        let at = problem.span.as_ref().and_then(|span| texts.at(span));
        let span = at.as_ref().map(|(_, span)| span.clone());
        let text = at.map(|(text, _)| text).or(texts.first());
        let (name, text) = text.map_or(("the policy", ""), |text| (&text.name, &text.text));
        Shown {
            problem,
            source: NamedSource::new(harmless(name, 4096), masked(text)).with_language("toml"),
            span,
            severity,
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&harmless(&without_secrets(&self.problem.message), 4096))
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        let help = self.problem.help.as_ref()?;
        Some(Box::new(harmless(&without_secrets(help), 4096)))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.span.as_ref().map(|_| &self.source as &dyn SourceCode)
    }

    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".into()), span))))
    }
}
