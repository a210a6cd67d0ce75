//! `berth automations validate`.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use crate::args::Output;
use crate::exit::{self, Exit};
use crate::output;

/// Checks a file; each mistake is named with line and column.
pub(crate) fn validate(format: Output, file: &Path) -> anyhow::Result<()> {
    let text = read(file).with_context(|| format!("cannot read {}", file.display()))?;
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

/// The text of a file, or of standard input (`-`); of a file that is too large, only enough to show that.
fn read(file: &Path) -> std::io::Result<String> {
    let limit = berth_automations::domain::file::MAX_FILE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    // The limit may have split a character.
    if bytes.len() as u64 == limit {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| std::io::Error::other(format!("it is not UTF-8 text: {error}")))
}
