//! What a repository's devcontainer.json says about the image: JSON with comments and trailing commas (containers.dev).

use serde::Deserialize;

/// Where the file may be, in the order they are looked at.
pub const PATHS: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

/// The part that Berth reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Devcontainer {
    /// Image to run.
    pub image: Option<String>,
    build: Option<serde_json::Value>,
    docker_file: Option<serde_json::Value>,
    docker_compose_file: Option<serde_json::Value>,
}

impl Devcontainer {
    /// Whether it wants an image built, which Berth does not do yet.
    #[must_use]
    pub fn wants_build(&self) -> bool {
        self.build.is_some() || self.docker_file.is_some() || self.docker_compose_file.is_some()
    }
}

/// Reads the file.
///
/// # Errors
/// What the JSON parser says of the line and column.
pub fn parse(text: &str) -> Result<Devcontainer, serde_json::Error> {
    serde_json::from_str(&plain_json(text))
}

/// Blanks comments and trailing commas out; lines and columns stay.
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
        assert_eq!(parse(text).unwrap().image.as_deref(), Some("debian:12"));
        assert!(parse(r#"{"build":{"dockerfile":"Dockerfile"},}"#).unwrap().wants_build());
        assert_eq!(parse("{}").unwrap(), Devcontainer::default());
        assert!(parse("{").is_err());
        assert!(parse("/* never closed").is_err());
    }
}
