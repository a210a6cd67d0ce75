//! Git credentials, sealed on the way in and opened on the way out.

use berth_api_types::git_credential::GitCredential;
use berth_clock::{Entropy, SharedClock};
use berth_ids::{CredentialId, UserId};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgConnection;
use std::sync::Arc;

use crate::remote::Login;
use crate::secrets::{Key, Place, SecretError};
use crate::store::credentials;

/// Most credentials that one user keeps.
pub(crate) const MAX_PER_USER: i64 = 200;

/// Why a credential could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The database.
    #[error("the git credentials cannot be read or written")]
    Database(#[from] sqlx::Error),
    /// Encryption.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The user has the maximum number of credentials.
    #[error("you have {MAX_PER_USER} git credentials, the most that are kept: remove one first")]
    TooMany,
    /// A stored secret is not text.
    #[error("password of scm.git_credentials {0} is not text")]
    NotText(CredentialId),
}

/// Seals and opens credentials.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    master: Key,
    clock: SharedClock,
    entropy: Arc<dyn Entropy>,
}

impl Vault {
    pub(crate) const fn new(master: Key, clock: SharedClock, entropy: Arc<dyn Entropy>) -> Self {
        Self { master, clock, entropy }
    }

    /// Stores a credential, replacing one for the same host. Returns whether it is new.
    pub(crate) async fn keep(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        host: &str,
        username: &str,
        password: &SecretString,
    ) -> Result<(GitCredential, bool), VaultError> {
        let now = self.clock.now();
        let entropy = self.entropy.as_ref();
        let owner = user.to_string();
        let wrapped = self.master.wrap(&Key::generate(entropy), key_place(&owner), entropy)?;
        let wrapped = credentials::keep_data_key(conn, user, &wrapped, now).await?;
        let key = self.master.unwrap_key(&wrapped, key_place(&owner))?;
        let new = CredentialId::new(self.clock.as_ref(), entropy);
        let (id, created) = credentials::claim(conn, new, user, host, username, now).await?;
        if created && credentials::count(conn, user).await? > MAX_PER_USER {
            return Err(VaultError::TooMany);
        }
        let row = id.to_string();
        let sealed = key.seal(password.expose_secret().as_bytes(), password_place(&row), entropy)?;
        Ok((credentials::write_secret(conn, id, &sealed).await?, created))
    }

    /// A user's credential for a host.
    pub(crate) async fn login(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        host: &str,
    ) -> Result<Option<Login>, VaultError> {
        let Some(sealed) = credentials::find(conn, user, host).await? else { return Ok(None) };
        let Some(wrapped) = credentials::data_key(conn, user).await? else { return Ok(None) };
        let owner = user.to_string();
        let key = self.master.unwrap_key(&wrapped, key_place(&owner))?;
        let row = sealed.id.to_string();
        let opened = key.open(&sealed.password, password_place(&row))?;
        let password = std::str::from_utf8(&opened).map_err(|_| VaultError::NotText(sealed.id))?;
        let password = SecretString::from(password);
        let now = self.clock.now();
        if sealed.last_used_at.is_none_or(|at| now - at > chrono::TimeDelta::hours(1)) {
            credentials::used(conn, sealed.id, now).await?;
        }
        Ok(Some(Login { username: sealed.username, password }))
    }
}

fn key_place(user: &str) -> Place<'_> {
    Place { table: "scm.data_keys", row: user, column: "wrapped" }
}

fn password_place(id: &str) -> Place<'_> {
    Place { table: "scm.git_credentials", row: id, column: "password" }
}
