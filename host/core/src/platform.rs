//! Platforms (OCI image specification, image index, `platform`).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An operating system and a processor architecture that an image is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, as in Go's GOOS: `linux`, `windows`, …
    pub os: String,
    /// The architecture, as in Go's GOARCH: `amd64`, `arm64`, …
    pub architecture: String,
    /// The variant of the architecture: `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// The text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read `{0}` as a platform: expected OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64 or linux/arm/v7")]
pub struct ParsePlatformError(String);

impl Platform {
    /// The platform of images for the machine that this program was built for.
    pub fn of_this_machine() -> Self {
        // There are no images for macOS, and its users run Linux images.
        let os = match oci_spec::image::Os::default() {
            oci_spec::image::Os::Darwin => oci_spec::image::Os::Linux,
            os => os,
        };
        let architecture = oci_spec::image::Arch::default().to_string();
        Platform { os: os.to_string(), architecture, variant: None }
    }

    /// Whether an image for `offered` is one that `self` asks for. Without a variant, `self` asks for every variant.
    /// `arm64` and `arm64/v8` are the same.
    pub fn wants(&self, offered: &Platform) -> bool {
        let normal = |platform: &Platform| match (platform.architecture.as_str(), platform.variant.as_deref())
        {
            ("arm64", Some("v8")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        self.os == offered.os
            && self.architecture == offered.architecture
            && (self.variant.is_none() || normal(self) == normal(offered))
    }
}

/// Architectures that may be written without an operating system, which is then Linux (Go's GOARCH; none of them is the
/// name of an operating system).
const ARCHITECTURES: [&str; 9] =
    ["amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "loong64", "mips64le"];

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let mut parts: Vec<&str> = text.split('/').collect();
        if ARCHITECTURES.contains(&parts[0]) {
            parts.insert(0, "linux");
        }
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() <= 1 && parts.iter().all(good) => {
                Ok(Platform {
                    os: (*os).into(),
                    architecture: (*architecture).into(),
                    variant: variant.first().map(|variant| (*variant).into()),
                })
            }
            _ => Err(ParsePlatformError(text.into())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_variant_narrows() {
        assert!(platform("linux/arm").wants(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm/v6").wants(&platform("linux/arm/v7")));
        assert!(platform("linux/arm64/v8").wants(&platform("linux/arm64")));
        assert!(!platform("linux/amd64").wants(&platform("windows/amd64")));
    }

    #[test]
    fn an_architecture_alone_is_of_linux() {
        assert_eq!(platform("amd64"), platform("linux/amd64"));
        assert_eq!(platform("arm/v7"), platform("linux/arm/v7"));
        assert_eq!(platform("windows/amd64").os, "windows");
    }

    #[test]
    fn refuses_what_is_no_platform() {
        for text in ["linux", "linux/", "linux/arm/v7/x", "a b/c", "amd64/v2/x", ""] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
