//! `POST /api/v1/sessions`: login.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{AuditResult, Login, Session};
use berth_http::{Json, Problem};
use secrecy::SecretString;

use super::begin;
use crate::domain::password::Checked;
use crate::http::caller::Caller;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Signs in with e-mail address and password. A wrong address and a wrong password get the same answer after the same time.
#[utoipa::path(
    post, path = "/api/v1/sessions", tag = "sessions", operation_id = "create_session", security(()), request_body = Login,
    responses((status = 201, body = Session), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn create(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<Login>,
) -> Result<Response, Problem> {
    begin::own_page(&api, &headers)?;
    begin::limit(&api, &caller, &body.email)?;
    let email = body.email.trim();
    let mut conn = api.connection().await?;
    let found = store::users::find_for_login(&mut conn, email).await?;
    drop(conn);
    let (user, hash) = found.map_or((None, None), |(user, hash)| (Some(user), hash));
    let password = SecretString::from(body.password);
    let checked = api.passwords().check(password.clone(), hash).await.map_err(Problem::internal)?;
    let rehash = match checked {
        Checked::RightButOld => Some(api.passwords().hash(password).await.map_err(Problem::internal)?),
        Checked::Right | Checked::Wrong => None,
    };
    let record = Record::anonymous(email, &caller, "session.create");
    let (Some(user), Checked::Right | Checked::RightButOld) = (user, checked) else {
        let mut conn = api.connection().await?;
        api.audit(&mut conn, record.result(AuditResult::Denied)).await?;
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "wrong_credentials",
            "the address or the password is wrong",
        ));
    };
    let mut transaction = api.begin().await?;
    if let Some(hash) = rehash {
        store::users::set_password(&mut transaction, user, &hash, api.now()).await?;
    }
    let started = begin::session(&api, &mut transaction, user, &caller).await?;
    let record = record.actor_is(user).on("session", started.session.id.as_uuid(), "");
    api.audit(&mut transaction, record).await?;
    commit(transaction).await?;
    let mut response = (StatusCode::CREATED, Json(started.session.clone())).into_response();
    started.set_cookie(&mut response);
    Ok(response)
}
