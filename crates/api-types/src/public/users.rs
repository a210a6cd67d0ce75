//! Accounts.

use berth_ids::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// For people.
    pub name: String,
    /// E-mail address of the account; unique.
    pub email: String,
    /// Git's `user.email` in their workspaces; `name` is git's `user.name`.
    #[serde(default)]
    pub git_email: String,
    /// May do everything in the installation.
    pub admin: bool,
}

/// `PATCH /api/v1/users/me`; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// For people, and git's `user.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// Git's `user.email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_email: Option<String>,
}

/// `POST /api/v1/users`, for administrators.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// E-mail address of the account; unique.
    #[schema(format = Email)]
    pub email: String,
    /// 12 to 256 characters; they change it after the first login.
    #[schema(min_length = 12, max_length = 256)]
    pub password: String,
    /// May do everything in the installation.
    #[serde(default)]
    pub admin: bool,
}

/// `PUT /api/v1/users/me/password`. Ends every other session of the user.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The present one; not needed by an account that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The new one, 12 to 256 characters.
    #[schema(min_length = 12, max_length = 256)]
    pub new: String,
}
