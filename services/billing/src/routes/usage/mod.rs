//! `/api/v1/usage`.

pub(super) mod export;
pub(super) mod list;

use berth_api_types::usage::UsageRecord;
use berth_http::Problem;
use berth_ids::{OrganizationId, UserId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::credits::{clip, to_millis};
use crate::store::usage::{Filter, Row};

/// Which usage.
#[derive(Clone, Debug, Default, Deserialize, Serialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageQuery {
    /// Beginning of the window (RFC 3339), inclusive.
    #[serde(default, deserialize_with = "time")]
    from: Option<DateTime<Utc>>,
    /// End of the window (RFC 3339), exclusive.
    #[serde(default, deserialize_with = "time")]
    to: Option<DateTime<Utc>>,
    /// `host/owner/name` of the repository, or its web URL.
    project: Option<String>,
    /// The same as `project`.
    repository: Option<String>,
    /// Id of the owner of the workspaces; `me`: your own.
    #[param(pattern = "^(me|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$")]
    user: Option<String>,
    /// Id of the organization that pays.
    organization: Option<OrganizationId>,
    /// Workspace class.
    class: Option<String>,
}

impl UsageQuery {
    fn filter(self, me: UserId, as_of: DateTime<Utc>) -> Result<Filter, Problem> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && to < from
        {
            return Err(Problem::bad_request("invalid_window", format!("`to` ({to}) is before `from` ({from})")));
        }
        let user = match self.user.as_deref() {
            None => None,
            Some("me") => Some(me),
            Some(id) => Some(id.parse().map_err(|error: berth_ids::ParseIdError| {
                Problem::bad_request("invalid_user", format!("user: {error}, or `me`"))
            })?),
        };
        let repository = self.project.or(self.repository).map(|text| repository_key(&text));
        Ok(Filter {
            from: self.from.map(to_millis),
            to: self.to.map(to_millis),
            repository,
            user,
            organization: self.organization,
            class: self.class,
            as_of: to_millis(as_of),
        })
    }
}

/// A time, refused with the form it must have.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match DateTime::parse_from_rfc3339(&text) {
        Ok(time) => Ok(Some(time.with_timezone(&Utc))),
        Err(_) => Err(serde::de::Error::custom(format!(
            "{text:?} is not a time: write RFC 3339, for example 2026-11-28T00:00:00Z or 2026-11-28T01:00:00+01:00"
        ))),
    }
}

/// `host/owner/name`, from that or from a URL of it.
fn repository_key(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let text = text.trim_end_matches('/');
    text.strip_suffix(".git").unwrap_or(text).to_owned()
}

/// A stored record as the API shows it; `None` if nothing of it lies in the window.
fn shown(row: Row, filter: &Filter) -> Option<UsageRecord> {
    let counted = clip(row.started_at, row.stopped_at, filter.from, filter.to, filter.as_of)?;
    let credits = row.credits_per_hour.and_then(|price| counted.credits(price));
    Some(UsageRecord {
        id: row.id,
        instance_id: row.instance_id,
        workspace_id: row.workspace_id,
        workspace_name: row.workspace_name,
        user_id: row.owner_id,
        organization_id: row.organization_id,
        repository: row.repository,
        class: row.class,
        credits_per_hour: row.credits_per_hour.map(|price| price.normalize().to_string()),
        started_at: row.started_at,
        stopped_at: row.stopped_at,
        counted_from: counted.from,
        counted_to: counted.to,
        duration_ms: counted.duration_ms,
        credits: credits.map(|credits| credits.normalize().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_by_key_or_url() {
        for text in
            ["github.com/o/n", "https://github.com/o/n", "https://github.com/o/n.git", " https://github.com/o/n/ "]
        {
            assert_eq!(repository_key(text), "github.com/o/n");
        }
    }
}
