//! The decision whether tags of a destination may be deleted. Nothing is asked here.

use crate::policy::PruneLimit;
use std::fmt;

/// What was observed of a destination repository, some of whose tags its source no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// How many tags would be deleted.
    pub due: usize,
    /// How many tags the destination has, with those.
    pub total: usize,
    /// How many tags the source lists now.
    pub listed: usize,
    /// How many tags the source listed when this was decided last. `None` means that it never was.
    pub listed_before: Option<usize>,
}

/// Why nothing of a repository is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// More tags are gone than may be deleted at once.
    TooMany(Gone),
    /// The destination would be left without a tag.
    Everything(Gone),
    /// The source lists less than half of what it listed, so its list may be wrong.
    Shrunk(Gone),
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = |count: usize| match count {
            1 => "1 tag".to_owned(),
            count => format!("{count} tags"),
        };
        match self {
            Spared::TooMany(gone) => {
                write!(
                    f,
                    "the source no longer has {} of its {}, more than may go at once",
                    gone.due,
                    tags(gone.total)
                )
            }
            Spared::Everything(gone) => {
                write!(
                    f,
                    "the source no longer has any of its {}, and nothing would be left",
                    tags(gone.total)
                )
            }
            Spared::Shrunk(gone) => write!(
                f,
                "the source lists {} where it listed {} before, so its list may be wrong",
                tags(gone.listed),
                gone.listed_before.unwrap_or_default()
            ),
        }
    }
}

impl Spared {
    /// What the user can do.
    pub fn help(&self) -> String {
        match self {
            Spared::TooMany(gone) => {
                format!(
                    "look at `dray plan --prune-limit {0}`; --prune-limit {0}, or `prune-limit` in the rule, deletes them",
                    gone.due
                )
            }
            Spared::Everything(_) | Spared::Shrunk(_) => {
                "look at the source; --prune-limit all deletes even so".into()
            }
        }
    }
}

/// Decides whether the tags that are gone may be deleted.
///
/// ```
/// use dray_core::{Gone, Spared, may_prune, policy::PruneLimit};
///
/// let gone = Gone { due: 3, total: 10, listed: 7, listed_before: Some(10) };
/// assert_eq!(may_prune(gone, PruneLimit::Fifth), Err(Spared::TooMany(gone)));
/// assert_eq!(may_prune(gone, PruneLimit::Tags(3)), Ok(()));
/// ```
///
/// # Errors
/// Fails if a guard forbids it.
pub fn may_prune(gone: Gone, limit: PruneLimit) -> Result<(), Spared> {
    let most = match limit {
        PruneLimit::All => return Ok(()),
        PruneLimit::Fifth => gone.total / 5,
        PruneLimit::Tags(number) => number,
    };
    match gone {
        Gone { due: 0, .. } => Ok(()),
        Gone { listed, listed_before: Some(before), .. } if listed.saturating_mul(2) < before => {
            Err(Spared::Shrunk(gone))
        }
        Gone { due, total, .. } if due >= total => Err(Spared::Everything(gone)),
        Gone { due, .. } if due > most => Err(Spared::TooMany(gone)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards() {
        use PruneLimit::{All, Fifth, Tags};
        let gone = |due, total, listed, listed_before| Gone { due, total, listed, listed_before };
        let rows = [
            (gone(0, 0, 0, Some(100)), Fifth, Ok(())),
            (gone(2, 10, 8, Some(10)), Fifth, Ok(())),
            (gone(3, 10, 7, Some(10)), Fifth, Err("no longer has 3 of its 10 tags")),
            (gone(1, 4, 3, Some(4)), Fifth, Err("no longer has 1 of its 4 tags")),
            (gone(1, 4, 3, None), Tags(1), Ok(())),
            (gone(2, 4, 2, None), Tags(1), Err("no longer has 2 of its 4 tags")),
            // The last tag goes only if the user says "all".
            (gone(1, 1, 0, None), Tags(9), Err("any of its 1 tag,")),
            (gone(4, 4, 0, Some(4)), Tags(9), Err("lists 0 tags where it listed 4")),
            (gone(1, 100, 49, Some(100)), Tags(9), Err("lists 49 tags where it listed 100")),
            (gone(1, 100, 50, Some(100)), Tags(9), Ok(())),
            (gone(4, 4, 0, Some(4)), All, Ok(())),
        ];
        for (gone, limit, expected) in rows {
            match (may_prune(gone, limit), expected) {
                (Ok(()), Ok(())) => {}
                (Err(spared), Err(text)) => {
                    assert!(spared.to_string().contains(text), "{spared}");
                    assert!(spared.help().contains("--prune-limit"));
                }
                (decision, _) => panic!("{gone:?} {limit:?}: {decision:?}"),
            }
        }
    }
}
