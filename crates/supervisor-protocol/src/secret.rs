//! A string that does not show itself in logs.

use serde::{Deserialize, Serialize};

/// A secret on its way through: serialised as a plain string, never shown by `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself. Each call is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn debug_hides_it() {
        let shown = format!("{:?}", super::Secret::new("hunter2"));
        assert!(!shown.contains("hunter2"));
    }
}
