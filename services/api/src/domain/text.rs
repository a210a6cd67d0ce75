//! Texts that users enter and other users will see.

/// Why a text is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidText {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Too long.
    #[error("it is longer than {max} characters")]
    Long {
        /// How long it may be.
        max: usize,
    },
    /// Something invisible in it.
    #[error("it holds control characters")]
    Control,
}

/// A line of text, trimmed: not empty, no control characters, no characters that change the direction of text, at most `max` characters.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn line(text: &str, max: usize) -> Result<String, InvalidText> {
    let text = text.trim();
    if text.is_empty() {
        return Err(InvalidText::Empty);
    }
    if text.chars().count() > max {
        return Err(InvalidText::Long { max });
    }
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(hidden) {
        return Err(InvalidText::Control);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_trimmed_and_bounded() {
        assert_eq!(line(" Ada Lovelace ", 20).unwrap(), "Ada Lovelace");
        assert_eq!(line(" ", 20), Err(InvalidText::Empty));
        assert_eq!(line("äääää", 4), Err(InvalidText::Long { max: 4 }));
        assert_eq!(line("a\u{202e}b", 4), Err(InvalidText::Control));
    }
}
