//! Signing in with a browser: the set-up, logins, sessions.

use berth_ids::{SessionId, UserId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/v1/setup`: makes the first administrator, once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// From the link that `berth server` showed.
    pub token: String,
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// E-mail address of the account.
    #[schema(format = Email)]
    pub email: String,
    /// 12 to 256 characters.
    #[schema(min_length = 12, max_length = 256)]
    pub password: String,
}

/// `GET /api/v1/setup`: needs no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetupStatus {
    /// A first administrator was made.
    pub set_up: bool,
}

/// `POST /api/v1/sessions`: a login. The answer sets the cookie `__Host-berth_session`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// E-mail address of the account.
    pub email: String,
    /// Its password.
    pub password: String,
}

/// A signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Who is signed in.
    pub user_id: UserId,
    /// It is the one that asks.
    pub current: bool,
    /// When they signed in.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_seen_at: DateTime<Utc>,
    /// When it expires in any case.
    pub expires_at: DateTime<Utc>,
    /// Where they signed in from.
    pub address: Option<String>,
    /// The program, as it calls itself.
    pub user_agent: Option<String>,
}
