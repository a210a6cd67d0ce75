//! The command line.

mod commands;
mod help;
mod manual;
mod parse;
mod signals;
mod table;

use crate::cgroup::Driver;
use crate::error::{Code, Error, Result};
use crate::log::{self, Level};
use crate::{files, timeline};
use parse::Parsed;

/// Version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of the specification that is followed.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

/// The global flags, which come before the command.
#[derive(Debug)]
pub(crate) struct Global {
    /// Directory of the records.
    pub(crate) root: String,
    /// Whether the command line named it.
    pub(crate) root_named: bool,
    pub(crate) driver: Driver,
    /// File that says how WebAssembly programs are run.
    pub(crate) wasm_config: Option<String>,
}

/// Runs the command line of the program and ends it with the command's exit status.
pub fn main() -> ! {
    let status = match crate::process::launch::fill_stdio() {
        Ok(()) => run(),
        Err(_) => 1,
    };
    std::process::exit(status)
}

fn run() -> i32 {
    let words: Vec<String> = match std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect() {
        Ok(words) => words,
        Err(word) => {
            let word = word.display().to_string();
            log::fatal(&Error::usage(word.as_str(), format!("{word} is not UTF-8")));
            return 1;
        }
    };
    match dispatch(&words) {
        Ok(status) => status,
        Err((error, status)) => {
            log::fatal(&error);
            status
        }
    }
}

fn dispatch(words: &[String]) -> Result<i32, (Error, i32)> {
    let fail = |e| (e, 1);
    let (global, used) = parse::parse(words, table::GLOBAL, true).map_err(fail)?;
    let Some(name) = global.args.first() else {
        if global.is("version") {
            return commands::info::print_version().map_err(fail);
        }
        return print(&help::overview()).map_err(fail);
    };
    let level = if global.is("debug") {
        Level::Debug
    } else {
        let name = global.get("log-level").unwrap_or("warn");
        Level::parse(name)
            .ok_or_else(|| fail(Error::usage("--log-level", format!("--log-level {name:?} is not known"))))?
    };
    let json = match global.get("log-format").unwrap_or("text") {
        "text" | "" => false,
        "json" => true,
        other => return Err(fail(Error::usage("--log-format", format!("invalid log-format: {other}")))),
    };
    let rootless = global.get("rootless").unwrap_or("auto");
    if !matches!(rootless, "" | "auto") && parse::boolean(rootless).is_none() {
        return Err(fail(Error::usage("--rootless", format!("--rootless {rootless:?}: true, false or auto"))));
    }
    log::setup(global.get("log"), json, level).map_err(fail)?;
    if matches!(name.as_str(), "help" | "h") {
        return help_for(words.get(used)).map_err(fail);
    }
    let Some(command) = table::COMMANDS.iter().find(|c| c.name == name) else {
        // The exit status that runc has for this case alone.
        return Err((Error::usage(name.as_str(), format!("No help topic for '{name}'")), 3));
    };
    if let Some(path) = global.get("timeline") {
        timeline::open(path).map_err(fail)?;
    }
    let rest = words.get(used..).unwrap_or(&[]);
    let own_words = if command.trailing { 1 } else { rest.len() };
    if rest.iter().take(own_words).take_while(|w| *w != "--").any(|w| w == "--help" || w == "-h") {
        return print(&help::command(command)).map_err(fail);
    }
    let context = Global {
        root: root(&global),
        root_named: global.get("root").is_some(),
        driver: driver(&global).map_err(fail)?,
        wasm_config: global.owned("wasm-config"),
    };
    let parsed = parse_command(command, rest).map_err(fail)?;
    // Different from that of a program that ends with 1.
    let failure = if command.name == "exec" { 255 } else { 1 };
    (command.run)(&context, &parsed).map_err(|e| (e, failure))
}

fn parse_command(command: &table::Command, rest: &[String]) -> Result<Parsed> {
    let (mut parsed, used) = parse::parse(rest, command.flags, command.trailing)?;
    if command.trailing {
        let mut trailing = rest.get(used..).unwrap_or(&[]);
        if trailing.first().is_some_and(|w| w == "--") {
            trailing = trailing.get(1..).unwrap_or(&[]);
        }
        parsed.args.extend(trailing.iter().cloned());
    }
    let (fewest, most) = command.args;
    if parsed.args.len() < fewest || parsed.args.len() > most {
        let wants = match most {
            usize::MAX => format!("at least {fewest}"),
            most if most == fewest => format!("exactly {fewest}"),
            most => format!("{fewest} to {most}"),
        };
        let (name, usage) = (command.name, command.usage);
        let text = format!("hull {name}: requires {wants} argument(s): hull {name} [options] {usage}");
        return Err(Error::usage(name, text));
    }
    Ok(parsed)
}

/// Parses a command line without executing it.
pub(crate) fn parse_only(words: &[String]) {
    let Ok((global, used)) = parse::parse(words, table::GLOBAL, true) else { return };
    let Some(name) = global.args.first() else { return };
    let Some(command) = table::COMMANDS.iter().find(|c| c.name == name) else { return };
    if let Ok(parsed) = parse_command(command, words.get(used..).unwrap_or(&[])) {
        signals::parse(parsed.arg(1));
    }
}

fn help_for(name: Option<&String>) -> Result<i32> {
    match name.and_then(|n| table::COMMANDS.iter().find(|c| c.name == n)) {
        Some(command) => print(&help::command(command)),
        None => print(&help::overview()),
    }
}

/// Where the records are: root has /run, others what their login session gave them. Root of a user namespace is another.
fn root(global: &Parsed) -> String {
    if let Some(root) = global.owned("root") {
        return crate::container::bundle::absolute(&root).unwrap_or(root);
    }
    if crate::rights::rule_the_host() {
        return "/run/hull".to_owned();
    }
    match std::env::var("XDG_RUNTIME_DIR") {
        Ok(dir) if dir.starts_with('/') => format!("{dir}/hull"),
        _ if rustix::process::geteuid().is_root() => "/run/hull".to_owned(),
        _ => format!("/tmp/hull-{}", rustix::process::geteuid().as_raw()),
    }
}

fn driver(global: &Parsed) -> Result<Driver> {
    if global.is("systemd-cgroup") {
        return Ok(Driver::Systemd);
    }
    match global.get("cgroup-manager").unwrap_or("cgroupfs") {
        "cgroupfs" | "" => Ok(Driver::Cgroupfs),
        "systemd" => Ok(Driver::Systemd),
        "disabled" => Ok(Driver::Disabled),
        other => {
            let flag = "--cgroup-manager";
            Err(Error::usage(flag, format!("{flag} {other:?}: cgroupfs, systemd or disabled")))
        }
    }
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<i32> {
    match files::write_all(rustix::stdio::stdout(), text.as_bytes()) {
        // Nobody reads any more: whoever wanted it has read enough.
        Ok(()) | Err(rustix::io::Errno::PIPE) => Ok(0),
        Err(e) => Err(Error::os(Code::Output, "standard output", e)),
    }
}

/// Prints a value as JSON on a line of its own.
pub(crate) fn print_line(value: &impl serde::Serialize) -> Result<i32> {
    let text = serde_json::to_string(value).map_err(|e| Error::new(Code::Internal, "JSON").says(e.to_string()))?;
    print(&(text + "\n"))
}

/// Prints a value as indented JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<i32> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Error::new(Code::Internal, "JSON").says(e.to_string()))?;
    print(&(text + "\n"))
}
