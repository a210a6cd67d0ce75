//! The session cookie.

use axum::http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

/// The prefix `__Host-` makes browsers refuse the cookie unless it is secure, of this host alone, and for all paths.
pub(crate) const NAME: &str = "__Host-berth_session";

/// What a `Cookie` header says of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// No session cookie.
    Nothing,
    /// Its value.
    One(&'a str),
    /// There are several: somebody planted one, and there is no telling which.
    Several,
}

/// Looks for the session cookie.
#[must_use]
pub(crate) fn find(header: &str) -> Found<'_> {
    let mut values = header.split(';').filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == NAME).then_some(value)
    });
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(value), None) => Found::One(value),
        (Some(_), Some(_)) => Found::Several,
    }
}

/// `Set-Cookie` of a new session.
#[must_use]
pub(crate) fn set(secret: &SecretString, max_age_seconds: u32) -> Option<HeaderValue> {
    let text =
        format!("{NAME}={}; Path=/; Max-Age={max_age_seconds}; Secure; HttpOnly; SameSite=Lax", secret.expose_secret());
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Set-Cookie` that removes it.
#[must_use]
pub(crate) const fn clear() -> HeaderValue {
    HeaderValue::from_static("__Host-berth_session=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_cookie_of_our_name_counts() {
        assert_eq!(find("a=b; __Host-berth_session=x; c=d"), Found::One("x"));
        assert_eq!(find("berth_session=x; x__Host-berth_session=y"), Found::Nothing);
        assert_eq!(find("__Host-berth_session=x;__Host-berth_session=y"), Found::Several);
        let set = set(&SecretString::from("s".to_owned()), 60).unwrap();
        for part in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(set.to_str().unwrap().contains(part));
            assert!(clear().to_str().unwrap().contains(part));
        }
    }
}
