//! `berth automations validate`.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use crate::args::Output;
use crate::exit::{self, Exit};
use crate::output;

/// Checks a file; each mistake is named with line and column.
pub(crate) fn validate(format: Output, file: &Path) -> anyhow::Result<()> {
    let bytes = read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let validation = berth_automations::validate(&bytes);
    output::result(format, &validation, |validation| {
        let place = |finding: &berth_automations::domain::file::Finding| {
            format!("{}:{}:{}: {}", file.display(), finding.line, finding.column, finding.message)
        };
        let mut text: String = validation.errors.iter().map(|error| place(error) + "\n").collect();
        text.extend(validation.warnings.iter().map(|warning| format!("{} (note)\n", place(warning))));
        if validation.valid {
            let (tasks, services) = (validation.tasks.len(), validation.services.len());
            text.push_str(&format!(
                "{}: valid, {tasks} task{}, {services} service{}\n",
                file.display(),
                plural(tasks),
                plural(services)
            ));
        }
        text
    })?;
    if validation.valid { Ok(()) } else { Err(Exit::silent(exit::FAILURE).into()) }
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The bytes of a file, or of standard input (`-`); of a file that is too large, only enough to show that.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let limit = berth_automations::domain::file::MAX_FILE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
