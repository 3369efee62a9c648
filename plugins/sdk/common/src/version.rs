use semver::{BuildMetadata, Prerelease, Version};

/// A first number with this many digits is a date or a build, and not a version: `20240807` is not newer than
/// `3.20`.
const DATE: usize = 8;

/// The version that a tag names. Tags write versions as `1.2.3`, `v1.2`, `1` or `1.2.3-rc.1`.
///
/// In addition to Semantic Versioning, a version may have up to four numbers, which may begin with zeros
/// (`2022.04.2`, `1.2.3.4`; the fourth is compared after the others), and `_` instead of `+`, which no tag
/// can contain (`1.2.3_build4`). A first number of eight digits or more is a date. `None` means that the tag
/// is not a version.
pub fn version(tag: &str) -> Option<Version> {
    let tag = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
    let (rest, build) = tag.split_once(['+', '_']).map_or((tag, None), |(rest, build)| (rest, Some(build)));
    let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(numbers, pre)| (numbers, Some(pre)));
    let mut parts = numbers.split('.').map(|part| {
        let good = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| part.parse::<u64>().ok()).flatten()
    });
    // `2024-08-07` is a date, too.
    let of_day = |text: &str| {
        text.len() >= 5
            && text.as_bytes()[2] == b'-'
            && text.bytes().take(2).all(|byte| byte.is_ascii_digit())
    };
    let is_day = numbers.len() == 4 && pre.is_some_and(of_day);
    if numbers.split('.').next()?.len() >= DATE || is_day {
        return None;
    }
    let mut next = || parts.next().unwrap_or(Some(0));
    let mut version = Version::new(next()?, next()?, next()?);
    let fourth = parts.next();
    if parts.next().is_some() {
        return None;
    }
    if let Some(pre) = pre {
        version.pre = Prerelease::new(&identifiers(pre)).ok().filter(|pre| !pre.is_empty())?;
    }
    // The semver crate compares the numbers in two builds one by one.
    let fourth = match fourth {
        Some(fourth) => Some(fourth?.to_string()),
        None => None,
    };
    let build: Vec<String> = fourth.into_iter().chain(build.map(numbered)).collect();
    version.build = BuildMetadata::new(&build.join(".")).ok()?;
    Some(version)
}

/// Separates the numbers in a build, so that they are compared as numbers: `build10` comes after `build4`.
fn numbered(build: &str) -> String {
    let mut out = String::new();
    let mut digit = None;
    for character in
        build.chars().map(|character| if matches!(character, '_' | '+') { '-' } else { character })
    {
        let is_digit = character.is_ascii_digit();
        if digit.is_some_and(|before| before != is_digit) && character != '.' && !out.ends_with('.') {
            out.push('.');
        }
        digit = Some(is_digit);
        out.push(character);
    }
    out
}

/// Removes leading zeros from numbers, because Semantic Versioning forbids them (9).
fn identifiers(text: &str) -> String {
    let plain = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) && part.len() > 1 {
        true => part.trim_start_matches('0').to_owned(),
        false => part.to_owned(),
    };
    let parts = text.split('.').map(|part| match plain(part) {
        empty if empty.is_empty() && !part.is_empty() => "0".into(),
        part => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tags() {
        assert_eq!(version("v1.2"), Some(Version::new(1, 2, 0)));
        assert_eq!(version("7"), Some(Version::new(7, 0, 0)));
        assert_eq!(version("1.2-rc.1"), Version::parse("1.2.0-rc.1").ok());
        assert_eq!(version("2022.04.2"), Some(Version::new(2022, 4, 2)));
        assert_eq!(version("1.2.3_build4"), Version::parse("1.2.3+build.4").ok());
        assert_eq!(version("1.2.3-rc.01"), Version::parse("1.2.3-rc.1").ok());
        for tag in [
            "latest",
            "1.2.3.4.5",
            "",
            "v",
            "1..2",
            "20240807",
            "20240807.1",
            "v202408071200",
            "2024-08-07",
            "2024-08-07-1",
            "1.x",
            "1.2-",
        ] {
            assert_eq!(version(tag), None, "{tag}");
        }
    }

    #[test]
    fn tags_are_in_the_order_in_which_people_made_them() {
        let tags =
            ["1.2.3-rc.1", "1.2.3", "1.2.3.4", "1.2.3.10", "1.2.4_build2", "1.2.4_build10", "3.9", "3.20"];
        let versions: Vec<_> = tags.iter().map(|tag| version(tag).unwrap()).collect();
        let mut sorted = versions.clone();
        sorted.sort();
        assert_eq!(versions, sorted);
    }
}
