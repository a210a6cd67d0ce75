//! The receipt of a start: step by step while it is in progress, complete at the end.

use std::collections::BTreeSet;
use std::io::Write as _;

use berth_api_types::public::{Step, Workspace};

use crate::output;

/// Prints steps as they happen.
#[derive(Debug, Default)]
pub(crate) struct Live {
    done: BTreeSet<String>,
    transient: bool,
}

impl Live {
    /// Shows what is new in the workspace's receipt.
    pub(crate) fn update(&mut self, workspace: &Workspace) {
        for step in &workspace.receipt.steps {
            if step.duration_us.is_some() && !self.done.contains(&step.name) {
                self.clear();
                output::styled(line(step));
                self.done.insert(step.name.clone());
            }
        }
        let current = workspace.receipt.steps.iter().rev().find(|step| step.duration_us.is_none());
        let text = match current {
            Some(step) if step.detail.is_empty() => format!("  … {}", step.name),
            Some(step) => format!("  … {} {}", step.name, step.detail),
            None if workspace.reason.is_empty() => return,
            None => format!("  … {}", workspace.reason),
        };
        self.show(&output::printable(&text).replace('\n', " "));
    }

    /// Ends the live part.
    pub(crate) fn finish(&mut self) {
        self.clear();
    }

    fn show(&mut self, text: &str) {
        if output::fancy() {
            self.clear();
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "{text}");
            let _ = stderr.flush();
            self.transient = true;
        } else if self.done.insert(text.to_owned()) {
            output::note(text);
        }
    }

    fn clear(&mut self) {
        if self.transient {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K");
            self.transient = false;
        }
    }
}

fn line(step: &Step) -> String {
    let time = step.duration_us.map_or_else(String::new, output::duration);
    let detail = if step.detail.is_empty() { String::new() } else { format!("  {}", step.detail) };
    let line = output::printable(&format!("{:<10} {time:>9}{detail}", step.name));
    if output::fancy() { format!("  \x1b[32m✓\x1b[0m {line}") } else { format!("  {line}") }
}

/// The whole receipt as text.
pub(crate) fn text(workspace: &Workspace) -> String {
    let mut text = String::new();
    for step in &workspace.receipt.steps {
        let time = step.duration_us.map_or_else(|| "…".to_owned(), output::duration);
        text.push_str(&format!("  {:<10} {time:>9}", step.name));
        if !step.detail.is_empty() {
            text.push_str(&format!("  {}", step.detail));
        }
        text.push('\n');
    }
    if let Some(total) = workspace.receipt.total_us {
        text.push_str(&format!("  {:<10} {:>9}\n", "total", output::duration(total)));
    }
    text
}

/// How far the OCI runtime was when, a line a phase; nothing where it has told nothing.
pub(crate) fn phases(workspace: &Workspace) -> String {
    let phases = workspace.receipt.steps.iter().flat_map(|step| &step.phases);
    phases.map(|phase| format!("  {:<10} {:>9}\n", phase.name, output::duration(phase.ended_ns / 1000))).collect()
}
