//! Names of workspaces: what is valid, and how one is derived from a repository.

use berth_clock::Entropy;

/// Longest name: it is also the host name inside, a DNS label.
pub(crate) const MAX_CHARS: usize = 63;

/// Words of the API's own paths.
const RESERVED: [&str; 1] = ["watch"];

/// Why a name is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidName {
    /// Not a DNS label.
    #[error(
        "use lower-case letters, digits and dashes, a letter or digit first and last, at most {MAX_CHARS} characters"
    )]
    Form,
    /// It could be mistaken for an id.
    #[error("it has the form of an id: use another name")]
    Id,
    /// It is a word of the API's own paths.
    #[error("it is a reserved word: use another name")]
    Reserved,
}

/// May a workspace have this name?
///
/// # Errors
/// Why not.
pub(crate) fn check(name: &str) -> Result<(), InvalidName> {
    let label = !name.is_empty()
        && name.len() <= MAX_CHARS
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-');
    if uuid::Uuid::try_parse(name).is_ok() {
        return Err(InvalidName::Id);
    }
    if !label {
        return Err(InvalidName::Form);
    }
    if RESERVED.contains(&name) { Err(InvalidName::Reserved) } else { Ok(()) }
}

/// Derives a name from a repository's: what does not fit becomes a dash.
#[must_use]
pub(crate) fn from_repository(repository: &str) -> String {
    let mut name = String::with_capacity(repository.len().min(MAX_CHARS));
    for c in repository.chars() {
        let c = c.to_ascii_lowercase();
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
        if name.len() == MAX_CHARS - 6 {
            // Leaves room for a suffix.
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if check(name).is_ok() { name.to_owned() } else { "workspace".to_owned() }
}

/// The name with a random suffix, for when it is taken: four letters and digits that are not easily confused.
#[must_use]
pub(crate) fn with_suffix(name: &str, entropy: &dyn Entropy) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut bytes = [0_u8; 4];
    entropy.fill(&mut bytes);
    let suffix: String = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    let base: String = name.chars().take(MAX_CHARS - 5).collect();
    format!("{}-{suffix}", base.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_clock::SystemEntropy;

    #[test]
    fn names_are_dns_labels_that_are_no_ids() {
        check("hello-2").unwrap();
        check(&"a".repeat(63)).unwrap();
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert_eq!(check(bad), Err(InvalidName::Form), "{bad}");
        }
        assert_eq!(check("019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77"), Err(InvalidName::Id));
        assert_eq!(check("watch"), Err(InvalidName::Reserved));
    }

    #[test]
    fn any_repository_gives_a_name() {
        assert_eq!(from_repository("Hello.World_2"), "hello-world-2");
        assert_eq!(from_repository("..."), "workspace");
        assert_eq!(from_repository("日本"), "workspace");
        assert_eq!(from_repository("watch"), "workspace");
        for repository in ["Hello", &"x-".repeat(80), &"x".repeat(200), "a--b"] {
            let name = from_repository(repository);
            check(&name).unwrap();
            check(&with_suffix(&name, &SystemEntropy)).unwrap();
        }
        check(&with_suffix(&"y".repeat(63), &SystemEntropy)).unwrap();
    }
}
