//! `hull list`.

use std::fmt::Write as _;

use super::super::parse::Parsed;
use super::super::{Global, print, print_line};
use crate::container::{self, Report, store::Entry};
use crate::error::{Code, Context, Error, Result};

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    if global.root_named {
        // The default root is made with the first container; one that was named explicitly must exist, or is misspelt.
        rustix::fs::stat(global.root.as_str()).context(Code::StateFile, &global.root)?;
    }
    let ids = Entry::list(&global.root)?;
    // A container that is being made or deleted right now is left out, and so is what is no container.
    let reports: Vec<Report> = ids.iter().filter_map(|id| container::report(&global.root, id).ok()).collect();
    if parsed.is("quiet") {
        return print(&reports.iter().map(|r| format!("{}\n", r.id)).collect::<String>());
    }
    match parsed.get("format").unwrap_or("table") {
        "json" => print_line(&reports),
        "table" | "" => print(&table(&reports)),
        other => Err(Error::usage("--format", format!("invalid format option: {other}"))),
    }
}

fn table(reports: &[Report]) -> String {
    let rows: Vec<[String; 6]> =
        std::iter::once(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned))
            .chain(reports.iter().map(|r| {
                [
                    r.id.clone(),
                    r.pid.to_string(),
                    r.status.to_owned(),
                    r.bundle.clone(),
                    r.created.clone(),
                    r.owner.clone(),
                ]
            }))
            .collect();
    let mut widths = [12usize; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len().saturating_add(3));
        }
    }
    let mut out = String::new();
    for row in &rows {
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(out, "{cell:width$}");
        }
        let trimmed = out.trim_end_matches(' ').len();
        out.truncate(trimmed);
        out.push('\n');
    }
    out
}
