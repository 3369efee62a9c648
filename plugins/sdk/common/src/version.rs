use semver::Version;

/// The version that a tag names, as tags write them: `1.2.3`, `v1.2`, `1`, `1.2.3-rc.1`.
pub fn version(tag: &str) -> Option<Version> {
    let tag = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
    let (numbers, suffix) = match tag.find('-') {
        Some(dash) => tag.split_at(dash),
        None => (tag, ""),
    };
    let missing = 2usize.checked_sub(numbers.matches('.').count())?;
    Version::parse(&format!("{numbers}{}{suffix}", ".0".repeat(missing))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tags() {
        assert_eq!(version("v1.2"), Some(Version::new(1, 2, 0)));
        assert_eq!(version("7"), Some(Version::new(7, 0, 0)));
        assert_eq!(version("1.2-rc.1"), Version::parse("1.2.0-rc.1").ok());
        for tag in ["latest", "1.2.3.4", "", "v", "1..2"] {
            assert_eq!(version(tag), None, "{tag}");
        }
    }
}
