//! `hull ps`.

use std::process::Command;

use super::super::parse::Parsed;
use super::super::{Global, print};
use crate::container::processes;
use crate::container::store::Entry;
use crate::error::{Code, Error, Result};

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let entry = Entry::open(&global.root, parsed.arg(0))?;
    let pids = processes::list(&entry, &entry.state()?)?;
    let (format, options) = trailing_format(parsed)?;
    if format == "json" {
        let text = serde_json::to_string(&pids).map_err(|e| Error::new(Code::Internal, "JSON").says(e.to_string()))?;
        return print(&(text + "\n"));
    }
    let options = if options.is_empty() { vec!["-ef".to_owned()] } else { options };
    let output = Command::new("ps").args(&options).output().map_err(|e| Error::of_io(Code::Exec, "ps", &e))?;
    if !output.status.success() {
        return Err(
            Error::new(Code::Exec, "ps").says(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim()))
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or("");
    let column = header
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::usage("ps", "couldn't find PID field in ps output"))?;
    let mut out = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    print(&out)
}

/// `--format` may also follow the id.
fn trailing_format(parsed: &Parsed) -> Result<(String, Vec<String>)> {
    let mut format = parsed.get("format").unwrap_or("table").to_owned();
    let mut options = Vec::new();
    let mut words = parsed.args.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--format" || word == "-f" && options.is_empty() && matches!(parsed.arg(2), "json" | "table") {
            format = words.next().cloned().unwrap_or_default();
        } else if let Some(value) = word.strip_prefix("--format=") {
            format = value.to_owned();
        } else {
            options.push(word.clone());
        }
    }
    if matches!(format.as_str(), "json" | "table") {
        Ok((format, options))
    } else {
        Err(Error::usage("--format", "invalid format option"))
    }
}
