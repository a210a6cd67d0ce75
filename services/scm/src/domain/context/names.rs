//! Rules for names in a URL that are the same everywhere.

use berth_api_types::context::ContextType;

use super::error::{ContextError, beginning};
use super::url::path_part;

/// An owner, group or project.
pub(super) const OWNER: &str = "an owner";
/// A repository.
pub(super) const REPOSITORY: &str = "a repository";

/// Checks a name of letters, digits and `extra`.
pub(super) fn plain_name(what: &'static str, value: &str, extra: &[u8]) -> Result<String, ContextError> {
    any_name(what, value)?;
    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte)) {
        Ok(value.to_owned())
    } else {
        Err(ContextError::Name {
            what,
            value: beginning(value),
            reason: "it has characters that the host does not allow",
        })
    }
}

/// Checks the name of a repository, without the suffix of its clone URL.
pub(super) fn repository(value: &str, extra: &[u8]) -> Result<String, ContextError> {
    let name = plain_name(REPOSITORY, value, extra)?;
    if name.ends_with(".git") {
        let reason = "the host gives no repository a name that ends with .git";
        return Err(ContextError::Name { what: REPOSITORY, value: beginning(value), reason });
    }
    Ok(name)
}

/// Checks a name that may hold spaces and letters of any language.
pub(super) fn any_name(what: &'static str, value: &str) -> Result<String, ContextError> {
    let bad = |reason| Err(ContextError::Name { what, value: beginning(value), reason });
    if value.is_empty() || value.len() > 255 {
        return bad("it must have 1 to 255 bytes");
    }
    if value.starts_with('-') {
        return bad("it must not begin with a dash");
    }
    if value.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|', '#', '%']) {
        return bad("it has characters that no host allows");
    }
    if value.trim() != value {
        return bad("it must not begin or end with a space");
    }
    Ok(value.to_owned())
}

/// Removes one `.git` at the end of a repository's name.
pub(super) fn without_git_suffix(name: &str) -> Result<&str, ContextError> {
    let name = name.strip_suffix(".git").unwrap_or(name);
    if name.is_empty() || name == "." || name == ".." {
        return Err(ContextError::Name {
            what: REPOSITORY,
            value: ".git".to_owned(),
            reason: "nothing is left without .git",
        });
    }
    Ok(name)
}

/// Removes `.patch` or `.diff`, which hosts append to the page of a commit or pull request for its plain text.
pub(super) fn without_text_suffix(value: &str) -> &str {
    value.strip_suffix(".patch").or_else(|| value.strip_suffix(".diff")).unwrap_or(value)
}

/// Checks a branch, tag or commit name by git-check-ref-format.
pub(super) fn reference(value: &str) -> Result<String, ContextError> {
    let bad = |reason| Err(ContextError::Reference { value: beginning(value), reason });
    if value.is_empty() || value.len() > 1024 {
        return bad("it must have 1 to 1024 bytes");
    }
    if value.starts_with('-') {
        return bad("it must not begin with a dash");
    }
    if value == "@" || value.contains("@{") || value.contains("..") {
        return bad("it contains .. or @{");
    }
    if value.ends_with('.') {
        return bad("it must not end with a dot");
    }
    if value.bytes().any(|byte| b" ~^:?*[\\".contains(&byte) || byte.is_ascii_control()) {
        return bad("it contains one of space ~ ^ : ? * [ \\");
    }
    for part in value.split('/') {
        if part.is_empty() || part.starts_with('.') || part.ends_with(".lock") {
            return bad("a part of it is empty, begins with a dot or ends with .lock");
        }
    }
    Ok(value.to_owned())
}

/// Checks the hexadecimal digits of a commit, whole or shortened; git writes them in lower case.
pub(super) fn commit(value: &str) -> Result<String, ContextError> {
    if (4..=64).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(value.to_ascii_lowercase())
    } else {
        Err(ContextError::Commit { value: beginning(value) })
    }
}

/// Whether a name is a complete commit id (SHA-1 or SHA-256).
pub(crate) fn is_full_commit(value: &str) -> bool {
    (value.len() == 40 || value.len() == 64) && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads the number of a pull request or issue.
pub(super) fn number(what: &'static str, value: &str) -> Result<u64, ContextError> {
    let bad = || ContextError::Number { what, value: beginning(value) };
    if value.is_empty() || value.starts_with('0') || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = value.parse().map_err(|_| bad())?;
    // Hosts, and our database, count with signed 64-bit numbers.
    if i64::try_from(number).is_ok() { Ok(number) } else { Err(bad()) }
}

/// Joins decoded segments into a path in the repository; `None` if there are none.
pub(super) fn path(segments: &[String]) -> Result<Option<String>, ContextError> {
    if segments.is_empty() {
        return Ok(None);
    }
    let path = segments.join("/");
    for part in path.split('/') {
        path_part(part)?;
    }
    if path.starts_with('-') {
        return Err(ContextError::Segment { part: beginning(&path), reason: "a path must not begin with a dash" });
    }
    Ok(Some(path))
}

/// The line of a fragment such as `L10`, `L10-L20`, `lines-10`, `10`.
pub(super) fn line(fragment: Option<&str>, prefixes: &[&str]) -> Option<u32> {
    let fragment = fragment?;
    let digits = prefixes.iter().find_map(|prefix| fragment.strip_prefix(prefix))?;
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let fits = rest.is_empty() || rest.starts_with(['-', ':', ',', 'C']);
    digits.parse().ok().filter(|line| fits && *line > 0)
}

/// File or folder, for hosts whose URLs do not say. It affects only what is displayed.
pub(super) fn file_or_directory(path: &str, line: Option<u32>, trailing_slash: bool) -> ContextType {
    const FILES: [&str; 16] = [
        "Makefile",
        "Dockerfile",
        "Containerfile",
        "LICENSE",
        "README",
        "NOTICE",
        "AUTHORS",
        "Gemfile",
        "Rakefile",
        "Jenkinsfile",
        "Procfile",
        "Vagrantfile",
        "CODEOWNERS",
        "Justfile",
        "justfile",
        "BUILD",
    ];
    if line.is_some() {
        return ContextType::File;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let has_extension = name.trim_start_matches('.').contains('.');
    let hidden_file = [".gitignore", ".gitattributes", ".gitmodules", ".editorconfig", ".env"].contains(&name);
    if !trailing_slash && (has_extension || hidden_file || FILES.contains(&name)) {
        ContextType::File
    } else {
        ContextType::Directory
    }
}
