//! What login and set-up share: limits, the check of the page's origin, the new session.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use berth_api_types::public::Session;
use berth_http::Problem;
use berth_ids::{SessionId, UserId};
use chrono::TimeDelta;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgConnection;

use crate::domain::secret;
use crate::http::caller::Caller;
use crate::http::cookie;
use crate::layers::limits::{Key, Rate};
use crate::state::Api;
use crate::store::{self, StoreError};

/// Tries per minute from one address, and for one account.
pub(in crate::routes) fn limit(api: &Api, caller: &Caller, account: &str) -> Result<(), Problem> {
    let rate = Rate::per_minute(api.config().logins_per_minute);
    let now = api.now();
    api.limits().take(Key::LoginAddress(caller.address.clone()), rate, now)?;
    api.limits().take(Key::LoginAccount(account.to_lowercase()), rate, now)?;
    Ok(())
}

/// A foreign page must not sign its visitor in under another name (login CSRF). Programs send no `Origin`.
pub(in crate::routes) fn own_page(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(()),
        (Some(origin), None) if origin.as_bytes() == api.config().public_url.as_bytes() => Ok(()),
        _ => Err(Problem::new(StatusCode::FORBIDDEN, "cross_origin", "a page of another origin may not sign you in")),
    }
}

/// A session that was just begun, with the secret of its cookie.
pub(in crate::routes) struct Started {
    pub(in crate::routes) session: Session,
    secret: SecretString,
    max_age_seconds: u32,
}

impl Started {
    pub(in crate::routes) fn set_cookie(&self, response: &mut Response) {
        if let Some(value) = cookie::set(&self.secret, self.max_age_seconds) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    }
}

/// Begins a session in the caller's transaction; always with a new secret (session fixation).
pub(in crate::routes) async fn session(
    api: &Api,
    conn: &mut PgConnection,
    user_id: UserId,
    caller: &Caller,
) -> Result<Started, StoreError> {
    let now = api.now();
    let max_age_seconds = api.config().session_absolute_seconds;
    let secret = secret::new_opaque(api.entropy());
    let session = Session {
        id: SessionId::new(api.clock(), api.entropy()),
        user_id,
        current: true,
        created_at: now,
        last_seen_at: now,
        expires_at: now + TimeDelta::seconds(i64::from(max_age_seconds)),
        address: Some(caller.address.clone()),
        user_agent: Some(caller.user_agent.clone()),
    };
    store::sessions::insert(conn, &session, &secret::hash(secret.expose_secret()), caller).await?;
    Ok(Started { session, secret, max_age_seconds })
}
