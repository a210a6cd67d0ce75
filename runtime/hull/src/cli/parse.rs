//! A small command line parser driven by tables, with the conventions of Go programs: `-flag` and `--flag`, `--flag=value`, `--bool=false`,
//! flags before or after the arguments, `--` ends them.

use crate::error::{Error, Result};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true` and `=false`.
    Bool,
    /// A value; the last one counts.
    Value,
    /// Values, all of which count.
    List,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Long name.
    pub(crate) name: &'static str,
    /// Other names, usually one letter.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) kind: Kind,
    /// What the value is called in help texts.
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
}

/// Makes a flag without value.
pub(crate) const fn switch(name: &'static str, aliases: &'static [&'static str], help: &'static str) -> Flag {
    Flag { name, aliases, kind: Kind::Bool, value: "", help }
}

/// Makes a flag with a value.
pub(crate) const fn value(
    name: &'static str,
    aliases: &'static [&'static str],
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, aliases, kind: Kind::Value, value, help }
}

/// Makes a flag that may be given several times.
pub(crate) const fn list(
    name: &'static str,
    aliases: &'static [&'static str],
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, aliases, kind: Kind::List, value, help }
}

/// What was on the command line.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    values: Vec<(&'static str, String)>,
    /// Arguments.
    pub(crate) args: Vec<String>,
}

impl Parsed {
    /// Whether a switch is on.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The last value of a flag.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// The same, owned, with empty text as `None`.
    pub(crate) fn owned(&self, name: &str) -> Option<String> {
        self.get(name).filter(|v| !v.is_empty()).map(str::to_owned)
    }

    /// All values of a flag.
    pub(crate) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.values.iter().filter(move |(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// A number; empty text is `None`.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.get(name)
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse()
                    .map_err(|_| usage(name, format!("invalid value {text:?} for flag -{name}: not a number in range")))
            })
            .transpose()
    }

    /// Argument number `index`.
    pub(crate) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }
}

fn usage(flag: &str, what: impl AsRef<str>) -> Error {
    Error::usage(if flag.starts_with('-') { flag.to_owned() } else { format!("--{flag}") }, what)
}

/// Parses words. With `until_argument`, the first argument ends the flags (the rest belongs to another program); returns what was found and
/// how many words were used.
pub(crate) fn parse(words: &[String], flags: &'static [Flag], until_argument: bool) -> Result<(Parsed, usize)> {
    let mut out = Parsed::default();
    let mut index = 0;
    while let Some(word) = words.get(index) {
        index = index.saturating_add(1);
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|_| word != "-") else {
            out.args.push(word.clone());
            if until_argument {
                break;
            }
            continue;
        };
        if word == "--" {
            break;
        }
        let (name, given) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = flags.iter().find(|f| f.name == name || f.aliases.contains(&name)) else {
            index = bundle_of_switches(word, body, flags, &mut out).map(|()| index)?;
            continue;
        };
        let text = match (flag.kind, given) {
            (Kind::Bool, None) => "true".to_owned(),
            (Kind::Bool, Some(value)) => match boolean(value) {
                Some(on) => on.to_string(),
                None => return Err(usage(flag.name, format!("invalid boolean value {value:?} for -{name}"))),
            },
            (_, Some(value)) => value.to_owned(),
            (_, None) => {
                let value =
                    words.get(index).ok_or_else(|| usage(flag.name, format!("flag needs an argument: -{name}")))?;
                index = index.saturating_add(1);
                value.clone()
            }
        };
        check_number(flag, &text)?;
        out.values.push((flag.name, text));
    }
    if !until_argument {
        out.args.extend(words.get(index..).unwrap_or(&[]).iter().cloned());
        index = words.len();
    }
    Ok((out, index))
}

/// Flags that take a number are checked here, so that `exec` exits with 1 for them, as for any other wrong command line, and
/// not with 255, as for a process that could not be started.
fn check_number(flag: &Flag, text: &str) -> Result<()> {
    let number = matches!(flag.value, "N" | "GID");
    if number && !text.is_empty() && text.parse::<i64>().is_err() {
        let what = format!("invalid value {text:?} for flag -{}: not a number", flag.name);
        return Err(usage(flag.name, what));
    }
    Ok(())
}

/// What Go takes for a boolean.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `-td` as `-t -d`.
fn bundle_of_switches(word: &str, body: &str, flags: &'static [Flag], out: &mut Parsed) -> Result<()> {
    let unknown = || usage(word, format!("flag provided but not defined: -{body}"));
    if word.starts_with("--") || body.contains('=') {
        return Err(unknown());
    }
    let mut names = Vec::new();
    for letter in body.chars() {
        let text = letter.to_string();
        let flag =
            flags.iter().find(|f| f.kind == Kind::Bool && f.aliases.contains(&text.as_str())).ok_or_else(unknown)?;
        names.push(flag.name);
    }
    out.values.extend(names.into_iter().map(|n| (n, "true".to_owned())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        switch("tty", &["t"], ""),
        switch("detach", &["d"], ""),
        value("bundle", &["b"], "PATH", ""),
        list("env", &["e"], "", ""),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_stand_before_and_after_arguments() {
        let (p, _) = parse(&words("-bundle /b id --detach"), FLAGS, false).unwrap();
        assert_eq!((p.get("bundle"), p.is("detach"), p.args.as_slice()), (Some("/b"), true, &["id".to_owned()][..]));
    }

    #[test]
    fn another_programs_words_are_left_alone() {
        let (p, used) = parse(&words("-td -e A=1 -e=B=2 id sh -c x"), FLAGS, true).unwrap();
        assert!(p.is("tty") && p.is("detach"));
        assert_eq!(p.all("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(used, 5);
    }

    #[test]
    fn unknown_flags_and_missing_values_are_errors() {
        assert!(parse(&words("--nope"), FLAGS, false).is_err());
        assert!(parse(&words("--bundle"), FLAGS, false).is_err());
        assert!(parse(&words("--tty=maybe"), FLAGS, false).is_err());
        assert!(!parse(&words("--tty=false"), FLAGS, false).unwrap().0.is("tty"));
    }
}
