//! CSV (RFC 4180) that a spreadsheet can open without executing formulas hidden in a repository's name.

/// Appends a line of cells.
pub(crate) fn line(out: &mut String, cells: &[&str]) {
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_cell(out, cell);
    }
    out.push_str("\r\n");
}

fn push_cell(out: &mut String, cell: &str) {
    // A spreadsheet takes a cell that begins like this for a formula; the apostrophe makes it text. Plain negative numbers stay as they are.
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && !is_number(cell);
    if !formula && !cell.contains(['"', ',', '\r', '\n']) {
        out.push_str(cell);
        return;
    }
    out.push('"');
    if formula {
        out.push('\'');
    }
    for character in cell.chars() {
        if character == '"' {
            out.push('"');
        }
        out.push(character);
    }
    out.push('"');
}

fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.matches('.').count() <= 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(cells: &[&str]) -> String {
        let mut out = String::new();
        line(&mut out, cells);
        out
    }

    #[test]
    fn cells_are_quoted_and_formulas_defused() {
        assert_eq!(of(&["a", "b c", ""]), "a,b c,\r\n");
        assert_eq!(of(&["a,b", "say \"hi\"", "x\ny"]), "\"a,b\",\"say \"\"hi\"\"\",\"x\ny\"\r\n");
        assert_eq!(of(&["=1+1", "+x", "-x", "@x", "\tx"]), "\"'=1+1\",\"'+x\",\"'-x\",\"'@x\",\"'\tx\"\r\n");
        assert_eq!(of(&["=HYPERLINK(\"http://x\",\"y\")"]), "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"\r\n");
        assert_eq!(of(&["-1.5", "-"]), "-1.5,\"'-\"\r\n");
    }

    /// Parses one line, as RFC 4180 says.
    fn read(text: &str) -> Vec<String> {
        let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
        let mut characters = text.strip_suffix("\r\n").unwrap().chars().peekable();
        while let Some(character) = characters.next() {
            match (quoted, character) {
                (false, ',') => cells.push(std::mem::take(&mut cell)),
                (false, '"') => quoted = true,
                (true, '"') if characters.peek() == Some(&'"') => {
                    characters.next();
                    cell.push('"');
                }
                (true, '"') => quoted = false,
                (_, character) => cell.push(character),
            }
        }
        cells.push(cell);
        cells
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cells in prop::collection::vec("[ -~\r\n\t\"]{0,12}", 1..5)) {
            let borrowed: Vec<&str> = cells.iter().map(String::as_str).collect();
            for (read, cell) in read(&of(&borrowed)).iter().zip(&cells) {
                let defused = format!("'{cell}");
                prop_assert!(read == cell || *read == defused);
                prop_assert!(is_number(read) || !read.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{:?}", read);
            }
        }
    }
}
