//! `berth automations validate`.

use std::path::Path;

use anyhow::Context as _;

use crate::args::Output;
use crate::exit::{self, Exit};
use crate::output;

/// Checks a file; each mistake is named with line and column.
pub(crate) fn validate(format: Output, file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let validation = berth_automations::validate(&text);
    output::result(format, &validation, |validation| {
        let place = |finding: &berth_automations::domain::file::Finding| {
            format!("{}:{}:{}: {}", file.display(), finding.line, finding.column, finding.message)
        };
        let mut text: String = validation.errors.iter().map(|error| place(error) + "\n").collect();
        text.extend(validation.warnings.iter().map(|warning| format!("{} (note)\n", place(warning))));
        if validation.valid {
            let (tasks, services) = (validation.tasks.len(), validation.services.len());
            text.push_str(&format!("{}: valid, {tasks} tasks, {services} services\n", file.display()));
        }
        text
    })?;
    if validation.valid { Ok(()) } else { Err(Exit::silent(exit::FAILURE).into()) }
}
