//! Image references: `registry/repository:tag@digest`, as the OCI distribution specification and Docker write them.

use std::fmt;
use std::str::FromStr;

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host with an optional port, lower case.
    pub registry: String,
    /// Path below the registry.
    pub repository: String,
    /// Tag, when given or implied (`latest`).
    pub tag: Option<String>,
    /// Digest of the manifest, when given; it wins over the tag.
    pub digest: Option<Digest>,
}

/// A reference that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an image reference ({why}): write for example debian:12 or registry.example.com/team/image:1.2"
)]
pub struct ReferenceError {
    /// What was given, cut to 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Docker's default registry.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// The registry name of images that exist on nodes only.
pub const LOCAL: &str = "berth";

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = |why| ReferenceError { text: text.chars().take(200).collect(), why };
        if text.is_empty() || text.len() > 1024 {
            return Err(wrong("its length"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| wrong("its digest"))?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash belongs to the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if tag.is_empty() || tag.len() > 128 || !tag.chars().all(good) || tag.starts_with(['.', '-']) {
                return Err(wrong("its tag"));
            }
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, path)) if first == LOCAL && !path.is_empty() => (LOCAL.to_owned(), path.to_owned()),
            // As pods name them: an image of no registry.
            Some(("localhost", path)) if path.starts_with("berth/") => {
                (LOCAL.to_owned(), path.trim_start_matches("berth/").to_owned())
            }
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_ascii_lowercase(), path.to_owned())
            }
            Some(_) => (DOCKER_HUB.to_owned(), name.to_owned()),
            None => (DOCKER_HUB.to_owned(), format!("library/{name}")),
        };
        let registry =
            if registry == "docker.io" || registry == "index.docker.io" { DOCKER_HUB.to_owned() } else { registry };
        let repository = if registry == DOCKER_HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if !registry_is_good(&registry) {
            return Err(wrong("its registry"));
        }
        if repository.len() > 255 || !repository.split('/').all(component_is_good) {
            return Err(wrong("its repository: lower case letters, digits and . _ - between slashes"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

fn component_is_good(part: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    part.chars().all(good) && edge(part.chars().next()) && edge(part.chars().next_back()) && !part.contains("..")
}

fn registry_is_good(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    !host.is_empty()
        && host.len() <= 253
        && host.chars().all(good)
        && !host.starts_with(['.', '-'])
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = if self.registry == DOCKER_HUB { "docker.io" } else { &self.registry };
        write!(f, "{registry}/{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Reference {
    /// Whether the image can only be on the node: nobody is asked for it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.registry == LOCAL
    }

    /// Host and port of the registry.
    #[must_use]
    pub fn host_port(&self) -> (String, Option<u16>) {
        match self.registry.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse().ok()),
            None => (self.registry.clone(), None),
        }
    }
}

/// A sha256 digest, `sha256:<64 hexadecimal digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Not a digest of a kind we verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sha256 digest")]
pub struct DigestError(pub String);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// From a finished hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 64 hexadecimal digits: a name that is safe in a path.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.chars().take(100).collect());
        let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        if digits.len() != 64 || digits.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn references_are_completed_as_docker_does() {
        assert_eq!(shown("debian"), "docker.io/library/debian:latest");
        assert_eq!(shown("docker.io/debian:12"), "docker.io/library/debian:12");
        assert_eq!(shown("team/app:1"), "docker.io/team/app:1");
        assert_eq!(shown("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(shown("GHCR.io/a/b:1"), "ghcr.io/a/b:1");
        assert_eq!(shown("berth/base"), "berth/base:latest");
        assert_eq!(shown("localhost/berth/base:latest"), "berth/base:latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(shown(&format!("x.io/a@{digest}")), format!("x.io/a@{digest}"));
        assert!("berth/base".parse::<Reference>().unwrap().is_local());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "a b",
            "../etc",
            "x.io/../a",
            "x.io/A",
            "x.io/a:-t",
            "x.io/a@sha256:12",
            "x.io/a@md5:00",
            "http://x.io/a",
            "x.io:0/a",
            "x.io:99999/a",
            "-x.io/a",
            "a//b",
            "x.io/a:",
            "user@x.io/a",
            "x.io/a?b",
            "x.io/a\nb",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
