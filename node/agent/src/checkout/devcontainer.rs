//! What a repository's devcontainer.json says about the image: JSON with comments and trailing commas (containers.dev).

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Where the file may be, in the order they are looked at.
pub const PATHS: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

/// Bytes of a file that are read.
pub const MAX_BYTES: u64 = 1 << 20;

/// The part that Berth reads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Devcontainer {
    image: Option<String>,
    build: Option<IgnoredAny>,
    docker_file: Option<IgnoredAny>,
    docker_compose_file: Option<IgnoredAny>,
}

/// Why a file does not determine the image.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is not JSON, or not of the right types. The parser names line and column.
    #[error("cannot be understood: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It builds its image, which is not supported.
    #[error(
        "wants its image built (`{0}`), which Berth does not do: build and push it elsewhere, and name it as `image`"
    )]
    Build(&'static str),
    /// It is there, but not to be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It is longer than [`MAX_BYTES`].
    #[error("is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// The image that the file asks for, if it asks for any.
///
/// # Errors
/// See [`Unusable`].
pub fn image(text: &str) -> Result<Option<String>, Unusable> {
    let file: Devcontainer = serde_json::from_str(&plain_json(text))?;
    if file.image.is_some() {
        return Ok(file.image);
    }
    let builds =
        [("build", file.build), ("dockerFile", file.docker_file), ("dockerComposeFile", file.docker_compose_file)];
    match builds.into_iter().find(|(_, value)| value.is_some()) {
        Some((field, _)) => Err(Unusable::Build(field)),
        None => Ok(None),
    }
}

/// Replaces comments and trailing commas by blanks, so that lines and columns stay the same.
fn plain_json(text: &str) -> String {
    let chars: Vec<char> = text.trim_start_matches('\u{feff}').chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut pending_comma: Option<usize> = None;
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        match (c, chars.get(i + 1)) {
            ('"', _) => {
                pending_comma = None;
                out.push(c);
                i += 1;
                while let Some(&c) = chars.get(i) {
                    out.push(c);
                    i += 1;
                    if c == '\\' {
                        out.extend(chars.get(i));
                        i += 1;
                    } else if c == '"' {
                        break;
                    }
                }
                continue;
            }
            ('/', Some('/')) => {
                while chars.get(i).is_some_and(|c| *c != '\n') {
                    out.push(' ');
                    i += 1;
                }
                continue;
            }
            ('/', Some('*')) => {
                while let Some(&c) = chars.get(i) {
                    let end = c == '*' && chars.get(i + 1) == Some(&'/');
                    out.push(if c == '\n' { c } else { ' ' });
                    i += 1;
                    if end {
                        out.push(' ');
                        i += 1;
                        break;
                    }
                }
                continue;
            }
            (',', _) => pending_comma = Some(out.len()),
            ('}' | ']', _) => {
                if let Some(at) = pending_comma.take() {
                    out.replace_range(at..=at, " ");
                }
            }
            (c, _) if c.is_whitespace() => {}
            _ => pending_comma = None,
        }
        out.push(c);
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_are_taken() {
        let text = r#"// a
        { /* b , */ "name": "x // not a comment, \" /* neither",
          "image": "debian:12", // c
          "list": [1, 2, ],
        }"#;
        assert_eq!(image(text).unwrap().as_deref(), Some("debian:12"));
        assert_eq!(image("{}").unwrap(), None);
        assert_eq!(image(r#"{"image": "a", "build": {"dockerfile": "Dockerfile"}}"#).unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let said = |text: &str| image(text).unwrap_err().to_string();
        assert!(said(r#"{"build":{"dockerfile":"Dockerfile"},}"#).starts_with("wants its image built (`build`)"));
        assert!(said(r#"{"dockerComposeFile":"compose.yml"}"#).contains("(`dockerComposeFile`)"));
        // Line and column refer to the file with its comments.
        let text = "{ // one\n  /* two */ \"image\" \"debian\"\n}";
        assert_eq!(said(text), "cannot be understood: expected `:` at line 2 column 21");
        assert!(
            said(r#"{"image": 3}"#).contains("expected a string at line 1 column 11"),
            "{}",
            said(r#"{"image": 3}"#)
        );
        assert!(said("{").contains("line 1"));
        assert!(said("/* never closed").contains("line 1"));
    }
}
