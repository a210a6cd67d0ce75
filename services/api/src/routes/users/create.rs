//! `POST /api/v1/users`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{CreateUser, User};
use berth_authz::{Authenticated, Authorized};
use berth_http::{Json, Problem};
use secrecy::SecretString;

use super::NewAccount;
use crate::domain::authorize::{self, Installation};
use crate::http::caller::Caller;
use crate::http::headers::IdempotencyKey;
use crate::state::{Api, commit};
use crate::store::audit::Record;

/// Makes an account, for administrators.
#[utoipa::path(
    post, path = "/api/v1/users", tag = "users", operation_id = "create_user", request_body = CreateUser,
    params(IdempotencyKey),
    responses((status = 201, body = User), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn create(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Json(body): Json<CreateUser>,
) -> Result<Response, Problem> {
    let right = Authorized::<Installation, authorize::CreateUser>::check(&principal, Installation)?;
    let account = NewAccount::check(&body.name, &body.email, SecretString::from(body.password), body.admin)?;
    let hash = account.hash(&api).await?;
    let mut transaction = api.begin().await?;
    let row = account.insert(&api, &mut transaction, &hash).await?;
    let record = Record::by(&principal, &caller, right.action()).on("user", row.id.as_uuid(), &row.email);
    api.audit(&mut transaction, record.detail(serde_json::json!({ "admin": row.admin }))).await?;
    commit(transaction).await?;
    Ok((StatusCode::CREATED, Json(User::from(row))).into_response())
}
