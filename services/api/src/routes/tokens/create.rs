//! `POST /api/v1/tokens`.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{CreateToken, CreatedToken, Token};
use berth_authz::Authenticated;
use berth_http::{Json, Problem};
use berth_ids::TokenId;
use chrono::TimeDelta;
use secrecy::ExposeSecret as _;

use crate::domain::secret;
use crate::http::caller::Caller;
use crate::http::headers::IdempotencyKey;
use crate::layers::idempotency::Unrepeatable;
use crate::routes::users;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Makes a token for the caller. Its secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens", operation_id = "create_token", request_body = CreateToken,
    params(IdempotencyKey),
    responses((status = 201, body = CreatedToken), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn create(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Json(body): Json<CreateToken>,
) -> Result<Response, Problem> {
    let name = users::name(&body.name, "/name")?;
    let most = api.config().token_max_days;
    let days = body.expires_in_days.unwrap_or(api.config().token_default_days);
    if days == 0 || days > most {
        let detail = format!("a token lives 1 to {most} days");
        return Err(Problem::unprocessable("invalid_expiry", detail.clone()).with_error("/expires_in_days", detail));
    }
    let now = api.now();
    let secret = secret::new_token(api.entropy());
    let token = Token {
        id: TokenId::new(api.clock(), api.entropy()),
        name,
        prefix: secret::token_prefix(&secret),
        created_at: now,
        expires_at: Some(now + TimeDelta::days(i64::from(days))),
        last_used_at: None,
    };
    let mut transaction = api.begin().await?;
    let hash = secret::hash(secret.expose_secret());
    store::tokens::insert(&mut transaction, principal.user_id, &token, &hash).await?;
    let record = Record::by(&principal, &caller, "token.create").on("token", token.id.as_uuid(), &token.name);
    api.audit(&mut transaction, record.detail(serde_json::json!({ "expires_at": token.expires_at }))).await?;
    commit(transaction).await?;
    let repeated = format!(
        "the token {:?} ({}) was made by this request before; its secret is not kept: revoke it and make another",
        token.name, token.id
    );
    let body = CreatedToken { token, secret: secret.expose_secret().to_owned() };
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, headers, Extension(Unrepeatable(repeated)), Json(body)).into_response())
}
