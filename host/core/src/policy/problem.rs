//! What is wrong with a policy, and where.

use std::ops::Range;

/// One mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes from the beginning of the policy.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A mistake at a place.
    pub fn new(message: impl Into<String>, span: Range<usize>) -> Self {
        Problem { message: message.into(), span: Some(span), help: None }
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("read the policy: {}", .0.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; "))]
pub struct PolicyError(pub Vec<Problem>);

/// `did you mean …?`, where one of the known words is near enough.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = known.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    let (distance, candidate) = near.min()?;
    (distance <= 1 + word.len() / 4).then(|| format!("did you mean `{candidate}`?"))
}
