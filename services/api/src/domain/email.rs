//! Addresses of accounts.

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not an e-mail address: write it as name@example.com")]
pub(crate) struct InvalidEmail;

/// Validates an address and normalises it: trimmed, its domain in lower case.
///
/// The rules are those of real mail systems, not of RFC 5322's grammar: one `@`, no spaces or control characters, at most 254 bytes.
///
/// # Errors
/// It is not one.
pub(crate) fn normalize(text: &str) -> Result<String, InvalidEmail> {
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
    let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"' | ',' | ';' | '@' | '\\');
    let domain_ok = !domain.is_empty()
        && !domain.starts_with(['.', '-'])
        && !domain.ends_with(['.', '-'])
        && !domain.contains("..")
        && domain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    if local.is_empty() || local.len() > 64 || text.len() > 254 || local.contains(bad) || !domain_ok {
        return Err(InvalidEmail);
    }
    Ok(format!("{local}@{}", domain.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_normalised_and_others_refused() {
        assert_eq!(normalize(" Ada@Example.COM ").unwrap(), "Ada@example.com");
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a b@c",
            "a@b@c",
            "a@.b",
            "a@b.",
            "a@b..c",
            "<a@b>",
            "a@b\n",
            "a\u{7}@b",
            "a@bücher.example",
        ] {
            assert_eq!(
                normalize(bad),
                if bad == "a@b\n" { Ok("a@b".to_owned()) } else { Err(InvalidEmail) },
                "{bad:?}"
            );
        }
    }
}
