//! What is read from a configuration before it is parsed.

/// Whether "user" is the value of something in the text, such as the type of a namespace. A text that hides the word (`"us\u0065r"`) merely
/// gets more protection than it needs.
///
/// This also runs before the C library has started and so must not call it: the compiler would turn a plain comparison into such a call.
#[must_use]
pub fn names_user_namespace(text: &[u8]) -> bool {
    let mut at: usize = 0;
    while let Some(this) = byte(text, at) {
        if this == b'"' && is_value_user(text, at) {
            return true;
        }
        at = at.wrapping_add(1);
    }
    false
}

/// Whether that word begins there, and is no name of something.
fn is_value_user(text: &[u8], mut at: usize) -> bool {
    for letter in b"\"user\"" {
        if byte(text, at) != Some(*letter) {
            return false;
        }
        at = at.wrapping_add(1);
    }
    while matches!(byte(text, at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at = at.wrapping_add(1);
    }
    byte(text, at) != Some(b':')
}

fn byte(text: &[u8], at: usize) -> Option<u8> {
    let byte = text.get(at)?;
    // SAFETY: a reference.
    Some(unsafe { core::ptr::from_ref(byte).read_volatile() })
}

#[cfg(test)]
mod tests {
    use super::names_user_namespace;

    #[test]
    fn a_user_namespace_is_seen_in_the_text() {
        for with in [
            r#"{"namespaces":[{"type":"user"}]}"#,
            r#"{"user":{},"type" : "user" , "path":"/x"}"#,
            r#"["user""#,
            r#"{"type":"user""#,
            r#""user""#,
            r#"{"args": ["""user"]}"#,
        ] {
            assert!(names_user_namespace(with.as_bytes()), "{with}");
        }
        for without in [
            r#"{"process":{"user":{"uid":0},"user" : 1}}"#,
            r#"{"type":"users"}"#,
            r#"{"users": "user1"}"#,
            r#"{"user"  : {"uid": 0}}"#,
            "",
        ] {
            assert!(!names_user_namespace(without.as_bytes()), "{without}");
        }
    }
}
