//! The command line, which is written by hull and not by a person.

use std::ffi::OsString;
use std::path::PathBuf;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Be the process of a container.
    Run(Run),
    /// Return the compiled form of the module on standard input.
    Cache {
        /// Where compiled modules are kept.
        directory: PathBuf,
    },
    /// Print versions.
    Version,
}

/// `run`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// Descriptor of the compiled form.
    pub(crate) compiled: Option<i32>,
    /// Directories beside `/` that the program gets.
    pub(crate) directories: Vec<String>,
    /// The module's file.
    pub(crate) module: String,
    /// What the program sees as its arguments, its own name first.
    pub(crate) args: Vec<String>,
}

/// Why the command line is invalid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("{0:?} is not UTF-8, and WebAssembly programs take nothing else")]
    NotUtf8(OsString),
    #[error(
        "usage: hull-wasm run [--compiled FD] [--dir PATH]... MODULE ARGV0 [ARG]... | hull-wasm cache DIRECTORY | hull-wasm --version"
    )]
    Usage,
}

/// Parses the words after the program's name.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut words = words.map(|word| word.into_string().map_err(UsageError::NotUtf8));
    let mut next = || words.next().transpose();
    match next()?.as_deref() {
        Some("run") => {}
        Some("cache") => return Ok(Command::Cache { directory: next()?.ok_or(UsageError::Usage)?.into() }),
        Some("--version") => return Ok(Command::Version),
        _ => return Err(UsageError::Usage),
    }
    let mut run = Run::default();
    loop {
        let word = next()?.ok_or(UsageError::Usage)?;
        match word.as_str() {
            "--compiled" => {
                let number = next()?.and_then(|text| text.parse().ok()).ok_or(UsageError::Usage)?;
                run.compiled = Some(number);
            }
            "--dir" => run.directories.push(next()?.ok_or(UsageError::Usage)?),
            // hull names the module by an absolute path, so no name looks like an option.
            _ => {
                run.module = word;
                break;
            }
        }
    }
    while let Some(word) = next()? {
        run.args.push(word);
    }
    if run.args.is_empty() { Err(UsageError::Usage) } else { Ok(Command::Run(run)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, UsageError> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn options_end_where_the_module_begins() {
        let Command::Run(run) = parsed("run --compiled 200 --dir /data /hello.wasm hello --dir x").unwrap() else {
            panic!("not run")
        };
        assert_eq!(run.compiled, Some(200));
        assert_eq!(run.directories, ["/data"]);
        assert_eq!(run.module, "/hello.wasm");
        assert_eq!(run.args, ["hello", "--dir", "x"]);
    }

    #[test]
    fn incomplete_lines_are_refused() {
        for line in ["", "run", "run /hello.wasm", "run --compiled x /m m", "run --dir", "cache", "other"] {
            assert!(parsed(line).is_err(), "{line:?}");
        }
    }
}
