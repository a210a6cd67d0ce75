//! Versions of a resource as clients see them.

use axum::http::{HeaderMap, HeaderValue, header};
use berth_http::Problem;

use crate::domain::workspace::Workspace;

/// The version of a resource: its settings' revision and, for a workspace, the version of its run's status.
///
/// On the wire `"<revision>.<status>"`. `If-Match` compares the revision alone: that a workspace went from Creating to Running
/// while somebody typed its new name is no conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ETag {
    /// Grows with each change of the settings.
    pub revision: i64,
    /// Grows with each change of the status.
    pub status: i64,
}

impl ETag {
    /// Of a resource without a status.
    #[must_use]
    pub(crate) const fn of(revision: i64) -> Self {
        Self { revision, status: 0 }
    }

    /// Of a workspace.
    #[must_use]
    pub(crate) fn of_workspace(workspace: &Workspace) -> Self {
        let status = workspace.instance.as_ref().map_or(0, |instance| instance.version);
        Self { revision: workspace.revision, status }
    }

    /// As a header's value.
    #[must_use]
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_str(&self.to_string()).unwrap_or_else(|_| HeaderValue::from_static("\"0.0\""))
    }

    /// The revision that the client wants to change; none: any.
    ///
    /// # Errors
    /// 400 when the header is not one of ours, or there are several.
    pub(crate) fn expected(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
        let mut values = headers.get_all(header::IF_MATCH).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let revision = tag.and_then(|tag| tag.split('.').next()).and_then(|revision| revision.parse().ok());
        match (revision, values.next()) {
            (Some(revision), None) => Ok(Some(revision)),
            _ => Err(Problem::bad_request("invalid_if_match", "If-Match takes one ETag as it was sent, or *")),
        }
    }

    /// The client has this very version already.
    #[must_use]
    pub(crate) fn known(self, headers: &HeaderMap) -> bool {
        headers.get(header::IF_NONE_MATCH).is_some_and(|value| {
            let ours = self.to_string();
            // A proxy that compresses makes our tags weak; for this question they count all the same (RFC 9110, 13.1.2).
            let is_ours = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == ours;
            value.to_str().is_ok_and(|list| list.split(',').any(|tag| is_ours(tag.trim())))
        })
    }

    /// 412: somebody changed it since.
    #[must_use]
    pub(crate) fn mismatch() -> Problem {
        Problem::new(
            axum::http::StatusCode::PRECONDITION_FAILED,
            "changed_meanwhile",
            "it was changed since you read it: read it again, then decide",
        )
    }
}

impl std::fmt::Display for ETag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}.{}\"", self.revision, self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, value.parse().unwrap());
        headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
        headers
    }

    #[test]
    fn tags_round_trip_and_foreign_ones_are_refused() {
        let tag = ETag { revision: 7, status: 3 };
        assert_eq!(ETag::expected(&headers(&tag.to_string())).unwrap(), Some(7));
        assert_eq!(ETag::expected(&headers("*")).unwrap(), None);
        assert_eq!(ETag::expected(&HeaderMap::new()).unwrap(), None);
        assert!(ETag::expected(&headers("W/\"7.3\"")).is_err());
        assert!(ETag::expected(&headers("\"a\"")).is_err());
        assert!(tag.known(&headers("\"1.1\", \"7.3\"")));
        assert!(tag.known(&headers("W/\"7.3\"")) && tag.known(&headers("*")));
        assert!(!tag.known(&headers("\"7.4\"")));
    }
}
