//! Usage of the public API.

use berth_ids::{InstanceId, OrganizationId, UsageRecordId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A billable interval of one instance, as far as it lies in the window that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageRecord {
    /// Its id.
    pub id: UsageRecordId,
    /// The run.
    pub instance_id: InstanceId,
    /// The workspace's id.
    pub workspace_id: WorkspaceId,
    /// Its name when the run started.
    pub workspace_name: String,
    /// Who owned it.
    pub user_id: UserId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// `host/owner/name`.
    pub repository: String,
    /// Workspace class.
    pub class: String,
    /// Credits per hour when the run started, a decimal number; null until the class's price is known.
    pub credits_per_hour: Option<String>,
    /// When the run became usable.
    pub started_at: DateTime<Utc>,
    /// When it stopped; null while it runs.
    pub stopped_at: Option<DateTime<Utc>>,
    /// Where the counted part begins: the start, or the beginning of the window.
    pub counted_from: DateTime<Utc>,
    /// Where the counted part ends: the stop, the end of the window, or now.
    pub counted_to: DateTime<Utc>,
    /// Length of the counted part.
    pub duration_ms: i64,
    /// Credits of the counted part, a decimal number.
    pub credits: Option<String>,
}

/// Sums over everything that fits the filter, not over one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageTotals {
    /// How many intervals.
    pub records: i64,
    /// Milliseconds.
    pub duration_ms: i64,
    /// Credits, a decimal number: the exact sum of the records' credits.
    pub credits: String,
    /// Intervals without a price yet; they are not in the credits.
    pub unpriced_records: i64,
    /// The moment up to which running instances are counted; the same on every page.
    pub as_of: DateTime<Utc>,
}

/// `GET /api/v1/usage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsagePage {
    /// The newest first.
    pub items: Vec<UsageRecord>,
    /// Sums over all pages.
    pub totals: UsageTotals,
    /// Cursor of the next page; null: this was the last.
    pub next_cursor: Option<String>,
}
