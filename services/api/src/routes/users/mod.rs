//! Accounts.

pub(super) mod change_password;
pub(super) mod create;
pub(super) mod list;
pub(super) mod me;
pub(super) mod update_me;

use berth_http::Problem;
use berth_ids::{OrganizationId, UserId};
use secrecy::SecretString;
use sqlx::PgConnection;

use crate::domain::{email, password, text};
use crate::state::Api;
use crate::store::StoreError;
use crate::store::users::{self, NewUser, UserRow};

const MAX_NAME_CHARS: usize = 100;

/// A name for people.
pub(in crate::routes) fn name(given: &str, pointer: &str) -> Result<String, Problem> {
    text::line(given, MAX_NAME_CHARS).map_err(|error| {
        Problem::unprocessable("invalid_name", format!("the name: {error}")).with_error(pointer, error.to_string())
    })
}

/// An address.
pub(in crate::routes) fn address(given: &str, pointer: &str) -> Result<String, Problem> {
    email::normalize(given).map_err(|error| {
        Problem::unprocessable("invalid_email", error.to_string()).with_error(pointer, error.to_string())
    })
}

/// A password that is good enough for the account.
pub(in crate::routes) fn strong(password: &SecretString, email: &str, pointer: &str) -> Result<(), Problem> {
    password::check_new(password, email).map_err(|error| {
        Problem::unprocessable("weak_password", error.to_string()).with_error(pointer, error.to_string())
    })
}

/// Validates an account that is about to be made.
pub(in crate::routes) struct NewAccount {
    pub(in crate::routes) name: String,
    pub(in crate::routes) email: String,
    password: SecretString,
    admin: bool,
}

impl NewAccount {
    pub(in crate::routes) fn check(
        given_name: &str,
        email: &str,
        password: SecretString,
        admin: bool,
    ) -> Result<Self, Problem> {
        let (name, email) = (name(given_name, "/name")?, address(email, "/email")?);
        strong(&password, &email, "/password")?;
        Ok(Self { name, email, password, admin })
    }

    pub(in crate::routes) async fn hash(&self, api: &Api) -> Result<String, Problem> {
        api.passwords().hash(self.password.clone()).await.map_err(Problem::internal)
    }

    pub(in crate::routes) async fn insert(
        &self,
        api: &Api,
        conn: &mut PgConnection,
        password_hash: &str,
    ) -> Result<UserRow, StoreError> {
        let user = NewUser {
            id: UserId::new(api.clock(), api.entropy()),
            organization_id: OrganizationId::new(api.clock(), api.entropy()),
            name: &self.name,
            email: &self.email,
            admin: self.admin,
            local: false,
            password_hash: Some(password_hash),
        };
        users::insert(conn, &user, api.now()).await
    }
}
