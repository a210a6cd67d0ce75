//! Command line of the `init` role. No argument parser crate: the caller is a program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;

/// How PID 1 is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Number of the listening socket.
    pub(crate) listen_fd: i32,
    /// Default user, as in `Exec::user`.
    pub(crate) user: Option<String>,
    /// Default working directory.
    pub(crate) cwd: Option<String>,
    /// Added to the environment of everything that is started.
    pub(crate) env: BTreeMap<String, String>,
    /// Where PID 1 keeps its own files inside the workspace; [`RUN_DIR`] when absent.
    pub(crate) run_dir: Option<String>,
}

/// Where PID 1 keeps its own files inside the workspace: a tmpfs where the host gives one.
pub(crate) const RUN_DIR: &str = "/.berth/run";

/// The command line is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    /// Not UTF-8.
    #[error("the argument {0:?} is not UTF-8")]
    Encoding(OsString),
    /// An option without its value.
    #[error("{0} needs a value")]
    Value(String),
    /// Not an option of ours.
    #[error("{0} is not an option of berth-init init")]
    Unknown(String),
    /// A value that cannot be right.
    #[error("{option} cannot be {value:?}")]
    Invalid {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
    },
    /// The socket is missing.
    #[error("--listen-fd is missing: berth-init serves a socket that it is started with")]
    NoSocket,
}

impl Options {
    /// Parses what follows `init`.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut options = Self { listen_fd: -1, ..Self::default() };
        let mut arguments = arguments.map(|argument| argument.into_string().map_err(OptionsError::Encoding));
        while let Some(argument) = arguments.next() {
            let argument = argument?;
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value = || match inline.clone().map(Ok).or_else(|| arguments.next()) {
                Some(value) => value,
                None => Err(OptionsError::Value(name.clone())),
            };
            match name.as_str() {
                "--listen-fd" => {
                    let value = value()?;
                    options.listen_fd = value
                        .parse()
                        .ok()
                        .filter(|fd| *fd > 2)
                        .ok_or(OptionsError::Invalid { option: "--listen-fd", value })?;
                }
                "--user" => options.user = Some(value()?).filter(|user| !user.is_empty()),
                "--run-dir" => options.run_dir = Some(value()?),
                "--cwd" => options.cwd = Some(value()?).filter(|cwd| !cwd.is_empty()),
                "--env" => {
                    let value = value()?;
                    let (key, content) = value
                        .split_once('=')
                        .filter(|(key, _)| !key.is_empty())
                        .ok_or_else(|| OptionsError::Invalid { option: "--env", value: value.clone() })?;
                    options.env.insert(key.to_owned(), content.to_owned());
                }
                _ => return Err(OptionsError::Unknown(name)),
            }
        }
        if options.listen_fd < 0 { Err(OptionsError::NoSocket) } else { Ok(options) }
    }
}

/// Writes a line to standard error, which is the workspace's log. If that fails, nothing can be done.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "berth-init: {text}");
}

/// Writes a line to the standard output.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, OptionsError> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn both_spellings_are_understood() {
        let options = parse(&["--listen-fd", "3", "--user=dev", "--env", "A=b=c", "--env=B=", "--cwd", "/w"]).unwrap();
        assert_eq!(options.listen_fd, 3);
        assert_eq!(options.user.as_deref(), Some("dev"));
        assert_eq!(options.cwd.as_deref(), Some("/w"));
        assert_eq!(options.env, BTreeMap::from([("A".to_owned(), "b=c".to_owned()), ("B".to_owned(), String::new())]));
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, part) in [
            (&["--user", "x"][..], "--listen-fd is missing"),
            (&["--listen-fd", "1"], "cannot be \"1\""),
            (&["--listen-fd"], "needs a value"),
            (&["--listen-fd", "3", "--what"], "--what is not"),
            (&["--listen-fd", "3", "--env", "novalue"], "--env cannot be"),
        ] {
            assert!(parse(arguments).unwrap_err().to_string().contains(part), "{arguments:?}");
        }
    }
}
