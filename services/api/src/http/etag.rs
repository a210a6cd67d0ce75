//! Versions of a resource as clients see them.

use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
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

    /// The revisions that the client wants to change; `None`: any.
    ///
    /// A weak tag, or one that we never gave out, is no revision: if there are only such tags, nothing matches (RFC 9110, 13.1.1).
    ///
    /// # Errors
    /// 400 when the header is neither `*` nor a list of tags.
    pub(crate) fn expected(headers: &HeaderMap) -> Result<Option<Vec<i64>>, Problem> {
        match tags(headers, header::IF_MATCH) {
            Some(Tags::Any) => Ok(None),
            Some(Tags::These(tags)) if tags.is_empty() => Ok(None),
            Some(Tags::These(tags)) => {
                let ours = tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.opaque.parse().ok());
                Ok(Some(ours.map(|tag: Self| tag.revision).collect()))
            }
            None => {
                let detail =
                    "If-Match takes ETags as they were sent, in their quotes and with commas between them, or *";
                Err(Problem::bad_request("invalid_if_match", detail))
            }
        }
    }

    /// Whether the client already has this very version.
    #[must_use]
    pub(crate) fn known(self, headers: &HeaderMap) -> bool {
        match tags(headers, header::IF_NONE_MATCH) {
            Some(Tags::Any) => true,
            // A proxy that compresses makes our tags weak; for this comparison they count all the same (RFC 9110, 13.1.2).
            Some(Tags::These(tags)) => tags.iter().any(|tag| tag.opaque.parse() == Ok(self)),
            None => false,
        }
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

/// Reads what is between the quotes.
impl FromStr for ETag {
    type Err = NotOurs;

    fn from_str(opaque: &str) -> Result<Self, NotOurs> {
        let (revision, status) = opaque.split_once('.').ok_or(NotOurs)?;
        let number = |text: &str| text.parse().map_err(|_| NotOurs);
        Ok(Self { revision: number(revision)?, status: number(status)? })
    }
}

/// We gave no such tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotOurs;

/// The value of a conditional header: RFC 9110, 8.8.3 and 13.1.
enum Tags<'a> {
    /// `*`.
    Any,
    /// A list; empty when there is no header.
    These(Vec<Tag<'a>>),
}

struct Tag<'a> {
    weak: bool,
    /// What is between the quotes.
    opaque: &'a str,
}

/// The tags in all headers of this name, which together are one list; `None` if they cannot be parsed.
fn tags(headers: &HeaderMap, name: HeaderName) -> Option<Tags<'_>> {
    let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().ok()).collect::<Option<_>>()?;
    if let [value] = values[..]
        && value.trim() == "*"
    {
        return Some(Tags::Any);
    }
    let sent = !values.is_empty();
    let mut tags = Vec::new();
    for value in values {
        let mut rest = value.trim_matches(BETWEEN);
        while !rest.is_empty() {
            let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
            // A comma may also be inside the quotes.
            let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
            tags.push(Tag { weak, opaque });
            if !after.is_empty() && !after.trim_start_matches([' ', '\t']).starts_with(',') {
                return None;
            }
            rest = after.trim_start_matches(BETWEEN);
        }
    }
    // A header without a tag is a mistake: it must not be taken for no condition at all.
    if sent && tags.is_empty() { None } else { Some(Tags::These(tags)) }
}

/// What may stand between the tags of a list.
const BETWEEN: [char; 3] = [' ', '\t', ','];

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
    fn if_match_takes_a_list_of_tags() {
        for (value, revisions) in [
            ("\"7.3\"", vec![7]),
            ("\"7.3\", \"9.0\"", vec![7, 9]),
            ("\"7.3\",\"9.0\" ,, \"10.1\" ,", vec![7, 9, 10]),
            // Tags of other servers match nothing, and must not hide ours.
            ("\"a,\", \"7.3\"", vec![7]),
            ("\"7\"", vec![]),
            ("W/\"7.3\"", vec![]),
        ] {
            assert_eq!(ETag::expected(&headers(value)).unwrap(), Some(revisions), "{value}");
        }
        let mut two = headers("\"7.3\"");
        two.append(header::IF_MATCH, "\"8.0\"".parse().unwrap());
        assert_eq!(ETag::expected(&two).unwrap(), Some(vec![7, 8]), "two headers are one list");
        for value in ["", " , ", "7.3", "\"7.3", "*, \"7.3\"", "\"7.3\" \"8.0\"", "\"7.3\"\"8.0\"", "w/\"7.3\""] {
            assert_eq!(ETag::expected(&headers(value)).unwrap_err().code(), "invalid_if_match", "{value}");
        }
    }

    #[test]
    fn tags_round_trip() {
        let tag = ETag { revision: 7, status: 3 };
        assert_eq!(ETag::expected(&headers(&tag.to_string())).unwrap(), Some(vec![7]));
        assert_eq!(ETag::expected(&headers("*")).unwrap(), None);
        assert_eq!(ETag::expected(&HeaderMap::new()).unwrap(), None);
        assert!(tag.known(&headers("\"1.1\", \"7.3\"")));
        assert!(tag.known(&headers("W/\"7.3\"")) && tag.known(&headers("*")));
        assert!(!tag.known(&headers("\"7.4\"")));
    }
}
