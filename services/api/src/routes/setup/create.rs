//! `POST /api/v1/setup`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{AuditResult, Setup, User};
use berth_http::{Json, Problem};
use secrecy::SecretString;

use crate::domain::secret;
use crate::http::caller::Caller;
use crate::routes::sessions::begin;
use crate::routes::users::NewAccount;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;
use crate::store::setup::Use;

/// Makes the first administrator with the link that `berth server` showed, and signs them in. Works once.
#[utoipa::path(
    post, path = "/api/v1/setup", tag = "setup", operation_id = "create_setup", security(()), request_body = Setup,
    responses((status = 201, body = User), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn create(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<Setup>,
) -> Result<Response, Problem> {
    begin::limit(&api, &caller, "setup")?;
    begin::own_page(&api, &headers)?;
    let account = NewAccount::check(&body.name, &body.email, SecretString::from(body.password), true)?;
    let hash = secret::hash(&body.token);

    // Checked before the password is hashed, which costs time and memory: whoever only guesses links causes none of it.
    let mut conn = api.connection().await?;
    let mut transaction = sqlx::Connection::begin(&mut *conn).await.map_err(store::StoreError::from)?;
    let known = store::setup::consume(&mut transaction, &hash, api.now()).await?;
    transaction.rollback().await.map_err(store::StoreError::from)?;
    drop(conn);
    let record = Record::anonymous(&account.email, &caller, "setup.create");
    if let Some(problem) = refused(known) {
        let mut conn = api.connection().await?;
        api.audit(&mut conn, record.result(AuditResult::Denied)).await?;
        return Err(problem);
    }
    let password_hash = account.hash(&api).await?;

    let mut transaction = api.begin().await?;
    if let Some(problem) = refused(store::setup::consume(&mut transaction, &hash, api.now()).await?) {
        return Err(problem);
    }
    let row = account.insert(&api, &mut transaction, &password_hash).await?;
    let record = record.actor_is(row.id).on("user", row.id.as_uuid(), &row.email);
    api.audit(&mut transaction, record).await?;
    let started = begin::session(&api, &mut transaction, row.id, &caller).await?;
    commit(transaction).await?;
    let user = User::from(row);
    let mut response = (StatusCode::CREATED, Json(user)).into_response();
    started.set_cookie(&mut response);
    Ok(response)
}

fn refused(outcome: Use) -> Option<Problem> {
    match outcome {
        Use::Accepted => None,
        Use::Wrong => Some(Problem::new(
            StatusCode::FORBIDDEN,
            "wrong_setup_token",
            "this is not the newest set-up link of this server: `berth server setup-link` makes another",
        )),
        Use::Over => Some(Problem::conflict("already_set_up", "the first administrator was made already: sign in")),
    }
}
