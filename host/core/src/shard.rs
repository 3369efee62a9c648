//! Shards: parts of a policy's work that several processes share without talking to each other.

use crate::Digest;
use std::{fmt, str::FromStr};

/// One of several parts of the work of a policy. Everything that is written to one repository is in one part, and stays in it as long as
/// the number of parts does.
///
/// ```
/// use dray_core::Shard;
///
/// let shards: Vec<Shard> = vec!["0/2".parse()?, "1/2".parse()?];
/// let repository = "docker:registry.example.com/app";
/// assert_eq!(shards.iter().filter(|shard| shard.takes(repository)).count(), 1);
/// assert!("2/2".parse::<Shard>().is_err());
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    of: u32,
}

impl Shard {
    /// Whether a repository, by its place and its name, is in this part.
    pub fn takes(&self, repository: &str) -> bool {
        let hash = Digest::of(repository.as_bytes()).hex();
        // The first 64 bits are as evenly spread as all of them.
        let number = u64::from_str_radix(&hash[..16], 16).unwrap_or_default();
        number % u64::from(self.of) == u64::from(self.index)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((index, of)) if index < of => Ok(Shard { index, of }),
            Some((_, of)) if of > 0 => Err(format!("the parts of {of} are 0/{of} to {}/{of}", of - 1)),
            _ => Err("write INDEX/NUMBER, and count from 0: 0/4 is the first of four parts".into()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repository_is_in_one_part_and_the_parts_are_even() {
        let shards: Vec<Shard> = (0..4).map(|index| format!("{index}/4").parse().unwrap()).collect();
        let mut counts = [0; 4];
        for number in 0..1000 {
            let repository = format!("docker:r.example\nteam/app-{number}");
            let taken: Vec<usize> = (0..4).filter(|at| shards[*at].takes(&repository)).collect();
            assert_eq!(taken.len(), 1);
            counts[taken[0]] += 1;
        }
        assert!(counts.iter().all(|count| (200..300).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_mistake_says_what_to_write() {
        for (text, told) in
            [("4/4", "0/4 to 3/4"), ("1", "INDEX/NUMBER"), ("0/0", "count from 0"), ("-1/2", "INDEX")]
        {
            assert!(text.parse::<Shard>().unwrap_err().contains(told), "{text}");
        }
        assert_eq!("1/3".parse::<Shard>().unwrap().to_string(), "1/3");
    }
}
