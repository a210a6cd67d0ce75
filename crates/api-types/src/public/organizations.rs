//! Organizations and their members.

use berth_ids::{OrganizationId, UserId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a member may do in an organization; the order is by power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrganizationRole {
    /// Works in it: workspaces of their own that it pays for.
    Member,
    /// Also its members and settings; sees, stops and deletes everybody's workspaces in it.
    Owner,
}

/// An organization, as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// For people.
    pub name: String,
    /// The personal one that every user has.
    pub personal: bool,
    /// The caller's role; null: an administrator who is not a member.
    pub role: Option<OrganizationRole>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// `POST /api/v1/organizations`; the maker is its first owner.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
}

/// `PATCH /api/v1/organizations/{organization}`; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateOrganization {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
}

/// A member of an organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// For people.
    pub name: String,
    /// E-mail address of the account.
    pub email: String,
    /// What they may do.
    pub role: OrganizationRole,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// `POST /api/v1/organizations/{organization}/members`: adds somebody who has an account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// E-mail address of their account.
    #[schema(min_length = 1)]
    pub email: String,
    /// What they may do.
    pub role: OrganizationRole,
}

/// `PUT /api/v1/organizations/{organization}/members/{user}`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMember {
    /// What they may do from now on.
    pub role: OrganizationRole,
}
