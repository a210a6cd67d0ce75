//! What is printed: results to standard output, progress and errors to standard error.

use std::io::{IsTerminal as _, Write as _};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use serde_json::Value;

use crate::args::Output;

/// Prints a result as JSON, or as the text that `text` makes of it.
pub(crate) fn result<T: Serialize>(output: Output, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let mut line = match output {
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Text => printable(&text(value)),
    };
    if !line.is_empty() && !line.ends_with('\n') {
        line.push('\n');
    }
    write(line.as_bytes())
}

/// Writes to standard output; a reader that left (`| head`) is no error.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    write_to_reader(bytes).map(drop)
}

/// Writes to standard output, and tells whether there is still a reader.
pub(crate) fn write_to_reader(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// Copies what is read to standard output; a reader that left is no error.
pub(crate) fn copy(from: &mut impl std::io::Read) -> anyhow::Result<()> {
    match std::io::copy(from, &mut std::io::stdout().lock()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Resolves when nobody reads standard output any more: the other end of a pipe has closed. Never for a file.
pub(crate) async fn reader_left() {
    let waited = tokio::task::spawn_blocking(|| {
        let stdout = std::io::stdout();
        loop {
            // That it is of no use any more is told whatever is asked for.
            match poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None) {
                Err(Errno::INTR) => {}
                told => return told,
            }
        }
    });
    if !matches!(waited.await, Ok(Ok(_))) {
        std::future::pending().await
    }
}

/// A line for people, on standard error.
pub(crate) fn note(line: impl AsRef<str>) {
    styled(printable(line.as_ref()));
}

/// The same with our colours; everything else in it must be [`printable`].
pub(crate) fn styled(line: impl AsRef<str>) {
    let mut stderr = std::io::stderr().lock();
    // There is nowhere to report that standard error cannot be written.
    let _ = writeln!(stderr, "{}", line.as_ref());
}

/// The text without control characters except line feeds and tabs: it may come from a git host, a repository or a process in a workspace, and
/// a terminal would obey it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// Whether standard error is a terminal that supports colours.
pub(crate) fn fancy() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A table with aligned columns.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.replace(['\n', '\t'], " ")).collect()).collect();
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The items of an answer that is a list.
pub(crate) fn items(answer: &Value) -> &[Value] {
    answer.get("items").unwrap_or(answer).as_array().map_or(&[], Vec::as_slice)
}

/// A field as a table shows it.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// `1.2 ms`, `340 ms`, `2.5 s`.
pub(crate) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        100_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

/// `2 GiB`, `512 MiB`.
pub(crate) fn bytes(count: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if count >= size {
            let tenths = count.saturating_mul(10) / size;
            return if tenths % 10 == 0 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_commands_the_terminal() {
        let hostile = "50%\x1b]0;owned\x07\r\u{9b}2J\tdone\n";
        assert_eq!(printable(hostile), "50%\u{fffd}]0;owned\u{fffd}\u{fffd}\u{fffd}2J\tdone\n");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            (duration(950), duration(1_250), duration(340_000), duration(2_500_000)),
            ("950 µs".into(), "1.2 ms".into(), "340 ms".into(), "2.50 s".into())
        );
        assert_eq!(
            (bytes(2 << 30), bytes(1_610_612_736), bytes(10)),
            ("2 GiB".into(), "1.5 GiB".into(), "10 B".into())
        );
        assert_eq!(table(&["A", "BB"], &[vec!["xyz".into(), "1".into()]]), "A    BB\nxyz  1\n");
    }
}
