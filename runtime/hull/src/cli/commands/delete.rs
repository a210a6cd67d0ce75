//! `hull delete`.

use super::super::Global;
use super::super::parse::Parsed;
use crate::container::{delete, store::Entry};
use crate::error::Result;

pub(in super::super) fn run(global: &Global, parsed: &Parsed) -> Result<i32> {
    let force = parsed.is("force");
    let mut first = None;
    let ids = if parsed.is("regex") { matching(&global.root, &parsed.args)? } else { parsed.args.clone() };
    for id in &ids {
        if let Err(error) = delete::delete(&global.root, id, force) {
            // A container that fails does not keep the others from being deleted.
            if ids.len() > 1 {
                crate::log::warn(&format!("{id}: {error}"));
            }
            first = first.or(Some(error));
        }
    }
    match first {
        Some(error) => Err(error),
        None => Ok(0),
    }
}

fn matching(root: &str, patterns: &[String]) -> Result<Vec<String>> {
    let ids = Entry::list(root)?;
    Ok(ids.into_iter().filter(|id| patterns.iter().any(|p| matches(p.as_bytes(), id.as_bytes()))).collect())
}

/// Whether a pattern with `*` and `?` matches the whole text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => matches(rest, text) || text.split_first().is_some_and(|(_, t)| matches(pattern, t)),
        (Some((b'?', p)), Some((_, t))) => matches(p, t),
        (Some((a, p)), Some((b, t))) if a == b => matches(p, t),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_cover_whole_ids() {
        assert!(matches(b"web-*", b"web-1"));
        assert!(matches(b"?b*", b"ab"));
        assert!(!matches(b"web", b"web-1"));
    }
}
