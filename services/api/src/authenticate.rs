//! Authentication: personal access tokens, session cookies, and root at the unix socket.
//!
//! Looking up a credential costs one query, so the result is cached for a few seconds under the hash of the secret. A change of rights
//! empties the cache at once in this process, and by notification in the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use berth_authz::{Authenticator, Credential, Presented, Principal};
use berth_http::Problem;
use berth_ids::{OrganizationId, UserId};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;

use crate::domain::secret::{self, SecretHash};
use crate::http::cookie::{self, Found};
use crate::state::{Api, commit};
use crate::store::audit::Record;
use crate::store::tokens::Holder;
use crate::store::users::NewUser;
use crate::store::{self, StoreError};

/// Seconds for which a cached credential is trusted.
const BELIEVED_SECONDS: i64 = 15;
/// Credentials kept at most.
const CACHE_SIZE: usize = 20_000;
/// A token's last use is written to the database at most this often, in seconds.
const TOKEN_TOUCH_SECONDS: i64 = 3600;
/// A session's last use is written to the database at most this often, in seconds.
const SESSION_TOUCH_SECONDS: i64 = 60;

#[derive(Clone, Debug)]
struct Known {
    principal: Arc<Principal>,
    expires_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    loaded_at: DateTime<Utc>,
}

/// What was looked up lately.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<CacheState>);

#[derive(Debug, Default)]
struct CacheState {
    known: HashMap<SecretHash, Known>,
    /// Counts invalidations: what was read from the database before one must not enter the cache after it.
    generation: u64,
}

impl Cache {
    fn get(&self, hash: &SecretHash, now: DateTime<Utc>) -> Result<Known, u64> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.known.get(hash) {
            Some(known) if now - known.loaded_at < TimeDelta::seconds(BELIEVED_SECONDS) => Ok(known.clone()),
            _ => Err(state.generation),
        }
    }

    fn put(&self, hash: SecretHash, known: Known, generation: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation != generation {
            return;
        }
        if state.known.len() >= CACHE_SIZE {
            let fresh_since = known.loaded_at - TimeDelta::seconds(BELIEVED_SECONDS);
            state.known.retain(|_, known| known.loaded_at > fresh_since);
            if state.known.len() >= CACHE_SIZE {
                state.known.clear();
            }
        }
        state.known.insert(hash, known);
    }

    fn used(&self, hash: &SecretHash, now: DateTime<Utc>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.known.get_mut(hash) {
            known.last_used_at = Some(now);
        }
    }

    /// Removes a user, or everybody, from the cache.
    pub(crate) fn forget(&self, user: Option<UserId>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation += 1;
        match user {
            Some(user) => state.known.retain(|_, known| known.principal.user_id != user),
            None => state.known.clear(),
        }
    }
}

/// Authentication against this service's own tables.
#[derive(Clone, Debug)]
pub(crate) struct LocalAuthenticator {
    api: Api,
}

enum Secret {
    Token,
    Session,
    Socket,
}

fn nothing_shown() -> Problem {
    Problem::unauthorized(
        "this needs credentials: send `Authorization: Bearer berth_pat_...` (`berth token create` makes one)",
    )
}

fn cross_origin(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "cross_origin", detail.to_owned())
}

/// The token of an `Authorization` header.
fn bearer(header: &str) -> Result<&str, Problem> {
    let refused = || Problem::unauthorized("the Authorization header must be `Bearer <token>`");
    let (scheme, token) = header.trim().split_once(' ').ok_or_else(refused)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(refused()) }
}

/// Browsers also send the cookie with requests that foreign pages make, so it counts only in requests of our own pages. Origins are compared
/// whole.
fn check_origin(presented: &Presented, public_url: &str) -> Result<(), Problem> {
    if !presented.unsafe_request {
        return Ok(());
    }
    match (&presented.origin, &presented.fetch_site) {
        (Some(origin), _) if origin == public_url => Ok(()),
        (Some(_), _) => Err(cross_origin("a page of another origin may not do this with your session")),
        (None, Some(site)) if site == "same-origin" => Ok(()),
        (None, _) => Err(cross_origin("a request with a session cookie that changes something must say its Origin")),
    }
}

impl LocalAuthenticator {
    pub(crate) const fn new(api: Api) -> Self {
        Self { api }
    }

    async fn principal(&self, presented: &Presented) -> Result<Arc<Principal>, Problem> {
        if let Some(header) = &presented.authorization {
            let token = bearer(header)?;
            secret::check_token(token).map_err(|error| Problem::unauthorized(error.to_string()))?;
            let found = self.lookup(Secret::Token, secret::hash(token)).await?;
            return found.ok_or_else(|| {
                Problem::unauthorized("the token is unknown, revoked or expired: `berth token create` makes another, `berth login` takes it")
            });
        }
        if let Some(header) = &presented.cookie {
            match cookie::find(header) {
                Found::One(value) => {
                    let found = self.lookup(Secret::Session, secret::hash(value)).await?;
                    let found = found.ok_or_else(|| Problem::unauthorized("the session is over: sign in again"))?;
                    check_origin(presented, &self.api.config().public_url)?;
                    return Ok(found);
                }
                Found::Several => {
                    return Err(Problem::bad_request("ambiguous_cookie", "the session cookie was sent more than once"));
                }
                Found::Nothing => {}
            }
        }
        match presented.peer_uid {
            Some(uid) if self.api.config().local_admin_uids.contains(&uid) => self
                .lookup(Secret::Socket, [0; 32])
                .await?
                .ok_or_else(|| Problem::internal("the unix socket's administrator vanished while it was looked up")),
            _ => Err(nothing_shown()),
        }
    }

    async fn lookup(&self, kind: Secret, hash: SecretHash) -> Result<Option<Arc<Principal>>, StoreError> {
        let now = self.api.now();
        let known = match self.api.cache().get(&hash, now) {
            Ok(known) => known,
            Err(generation) => {
                let mut conn = self.api.connection().await?;
                let holder = match kind {
                    Secret::Token => store::tokens::holder_of_token(&mut conn, &hash).await?,
                    Secret::Session => store::tokens::holder_of_session(&mut conn, &hash).await?,
                    Secret::Socket => match store::tokens::holder_of_socket(&mut conn).await? {
                        Some(holder) => Some(holder),
                        None => {
                            drop(conn);
                            Some(self.make_socket_administrator().await?)
                        }
                    },
                };
                let Some(Holder { principal, expires_at, last_used_at }) = holder else { return Ok(None) };
                let known = Known { principal: Arc::new(principal), expires_at, last_used_at, loaded_at: now };
                self.api.cache().put(hash, known.clone(), generation);
                known
            }
        };
        if known.expires_at <= now || self.idled(&known, now) {
            return Ok(None);
        }
        self.touch(&hash, &known, now).await?;
        Ok(Some(known.principal))
    }

    fn idled(&self, known: &Known, now: DateTime<Utc>) -> bool {
        let Credential::Session { .. } = known.principal.credential else { return false };
        let idle = TimeDelta::seconds(i64::from(self.api.config().session_idle_seconds));
        known.last_used_at.is_none_or(|last| now - last >= idle)
    }

    /// Records the last use, at most once in a while.
    async fn touch(&self, hash: &SecretHash, known: &Known, now: DateTime<Utc>) -> Result<(), StoreError> {
        let seconds = match known.principal.credential {
            Credential::Token { .. } => TOKEN_TOUCH_SECONDS,
            Credential::Session { .. } => SESSION_TOUCH_SECONDS,
            Credential::Local => return Ok(()),
        };
        let due = now - TimeDelta::seconds(seconds);
        if known.last_used_at.is_some_and(|last| last > due) {
            return Ok(());
        }
        self.api.cache().used(hash, now);
        let mut conn = self.api.connection().await?;
        match known.principal.credential {
            Credential::Token { id } => store::tokens::touch(&mut conn, id, now, due).await,
            Credential::Session { id } => store::sessions::touch(&mut conn, id, now).await,
            Credential::Local => Ok(()),
        }
    }

    /// Makes the account that root at the unix socket acts as. Of two requests at the same moment one loses, and uses the account that the
    /// other made.
    async fn make_socket_administrator(&self) -> Result<Holder, StoreError> {
        let (clock, entropy) = (self.api.clock(), self.api.entropy());
        let id = UserId::new(clock, entropy);
        let user = NewUser {
            id,
            organization_id: OrganizationId::new(clock, entropy),
            name: "root",
            email: "root@localhost",
            admin: true,
            local: true,
            password_hash: None,
        };
        let mut transaction = self.api.begin().await?;
        match store::users::insert(&mut transaction, &user, self.api.now()).await {
            Ok(_) => {
                let record = Record::system("unix socket", "user.create").on("user", id.as_uuid(), "root@localhost");
                self.api.audit(&mut transaction, record).await?;
                commit(transaction).await?;
            }
            Err(error) => {
                tracing::debug!(%error, "another request made the unix socket's administrator");
                drop(transaction);
            }
        }
        let mut conn = self.api.connection().await?;
        let holder = store::tokens::holder_of_socket(&mut conn).await?;
        holder.ok_or_else(|| StoreError::Corrupt {
            table: "api.users",
            column: "local",
            id: id.to_string(),
            value: "no row".to_owned(),
        })
    }
}

impl Authenticator for LocalAuthenticator {
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Arc<Principal>, Problem>> {
        Box::pin(self.principal(presented))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_may_use_the_cookie() {
        let ours = "https://berth.example.com";
        let presented = |origin: Option<&str>, site: Option<&str>| Presented {
            origin: origin.map(Into::into),
            fetch_site: site.map(Into::into),
            unsafe_request: true,
            ..Presented::default()
        };
        for good in [presented(Some(ours), None), presented(None, Some("same-origin"))] {
            check_origin(&good, ours).unwrap();
        }
        let evil = [
            presented(None, None),
            presented(Some("null"), Some("same-origin")),
            presented(Some("https://berth.example.com.evil.test"), None),
            presented(Some("http://berth.example.com"), None),
            presented(Some("https://8080--hello.berth.example.com"), Some("same-site")),
            presented(Some("https://berth.example.com:8443"), None),
            presented(None, Some("same-site")),
            presented(None, Some("none")),
        ];
        for bad in evil {
            assert_eq!(check_origin(&bad, ours).unwrap_err().code(), "cross_origin", "{bad:?}");
        }
        check_origin(&Presented { unsafe_request: false, ..presented(None, Some("cross-site")) }, ours).unwrap();
    }

    #[test]
    fn bearer_is_read_in_any_case_and_nothing_else_is() {
        assert_eq!(bearer("bearer  x").unwrap(), "x");
        for bad in ["x", "Basic x", ""] {
            assert!(bearer(bad).is_err(), "{bad}");
        }
    }
}
