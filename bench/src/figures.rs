//! Figures and their table.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// Rows: what was measured, the figure, the bar, whether it holds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<[String; 4]>,
    notes: Vec<String>,
}

impl Report {
    /// Adds a figure with its bar in the same unit; smaller is better.
    pub(crate) fn add(&mut self, what: &str, figure: f64, bar: f64, unit: &str) {
        let verdict = if figure < bar { "holds" } else { "**misses**" };
        self.rows.push([what.to_owned(), format!("{figure:.1} {unit}"), format!("< {bar} {unit}"), verdict.to_owned()]);
    }

    /// Adds a figure whose bar was looked at already.
    pub(crate) fn row(&mut self, what: &str, figure: String, bar: String, verdict: &str) {
        self.rows.push([what.to_owned(), figure, bar, verdict.to_owned()]);
    }

    /// Adds a figure without a bar.
    pub(crate) fn tell(&mut self, what: &str, figure: impl Into<String>) {
        self.rows.push([what.to_owned(), figure.into(), String::new(), String::new()]);
    }

    /// Adds a line below the table.
    pub(crate) fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    fn text(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib: u64 =
            memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut text = format!(
            "Measured by `make bench` on {cores} cores, {} GiB of memory, Linux {kernel}.\n\n| what | figure | bar | |\n|---|---|---|---|\n",
            memory_kib >> 20
        );
        for [what, figure, bar, verdict] in &self.rows {
            text.push_str(&format!("| {what} | {figure} | {bar} | {verdict} |\n"));
        }
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }

    /// Prints the table.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        Ok(std::io::stdout().lock().write_all(self.text().as_bytes())?)
    }

    /// Puts the table between the file's markers.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        const BEGIN: &str = "<!-- bench -->";
        const END: &str = "<!-- /bench -->";
        let present = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let (head, rest) = present.split_once(BEGIN).with_context(|| format!("no {BEGIN} in {}", file.display()))?;
        let (_, tail) = rest.split_once(END).with_context(|| format!("no {END} in {}", file.display()))?;
        Ok(std::fs::write(file, format!("{head}{BEGIN}\n{}{END}{tail}", self.text()))?)
    }
}

/// The value that this share (0 to 1) of the times does not exceed, in milliseconds.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort();
    if times.is_empty() {
        return f64::NAN;
    }
    let rank = (share * times.len() as f64).ceil().max(1.0);
    let mut index = 0;
    while (index + 1) as f64 <= rank - 1.0 {
        index += 1;
    }
    times.get(index.min(times.len() - 1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!((percentile(&mut times, 0.5), percentile(&mut times, 0.95)), (50.0, 95.0));
        assert_eq!(percentile(&mut [Duration::from_millis(7)], 0.5), 7.0);
    }
}
