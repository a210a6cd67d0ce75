//! `PATCH /api/v1/workspaces/{workspace}`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use berth_api_types::internal::SetTimeout;
use berth_api_types::public::{UpdateWorkspace, Workspace};
use berth_authz::Authenticated;
use berth_http::{Json, Path, Problem};

use super::{answer, load, not_deleting};
use crate::domain::authorize;
use crate::domain::{name, workspace};
use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::http::headers::IfMatch;
use crate::state::Api;
use crate::store;
use crate::store::audit::Record;
use crate::store::workspaces::SettingsChange;

/// A name for a workspace.
pub(super) fn check_name(given: &str) -> Result<(), Problem> {
    name::check(given).map_err(|error| {
        Problem::unprocessable("invalid_name", format!("the name {given:?}: {error}"))
            .with_error("/name", error.to_string())
    })
}

/// A time without activity.
pub(super) fn check_inactivity(seconds: Option<u32>) -> Result<(), Problem> {
    workspace::check_inactivity(seconds).map_err(|error| {
        let text = error.to_string();
        Problem::unprocessable("invalid_inactivity", text.clone()).with_error("/inactivity_seconds", text)
    })
}

/// Renames a workspace, or changes when it stops by itself; that holds for a running one at once.
#[utoipa::path(
    patch, path = "/api/v1/workspaces/{workspace}", tag = "workspaces", operation_id = "update_workspace",
    request_body = UpdateWorkspace,
    params(
        ("workspace" = String, Path, description = "Its id or name"),
        IfMatch
    ),
    responses((status = 200, body = Workspace), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn update(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    headers: HeaderMap,
    Path(reference): Path<String>,
    Json(body): Json<UpdateWorkspace>,
) -> Result<Response, Problem> {
    let right = load::<authorize::UpdateWorkspace>(&api, &principal, &caller, &reference).await?;
    not_deleting(&right)?;
    let expected = ETag::expected(&headers)?;
    body.name.as_deref().map(check_name).transpose()?;
    check_inactivity(body.inactivity_seconds)?;
    let (name, seconds) = (body.name.as_deref(), body.inactivity_seconds);

    let record = Record::by(&principal, &caller, right.action()).on("workspace", right.id.as_uuid(), &right.name);
    let detail = serde_json::json!({ "name": body.name, "inactivity_seconds": body.inactivity_seconds });
    let entry = api.audit_entry(record.detail(detail));
    let change = SettingsChange { name, inactivity_seconds: seconds, expected: expected.as_deref(), now: api.now() };
    let mut conn = api.connection().await?;
    let revision = store::workspaces::update(&mut conn, &right, &change, entry).await?;
    drop(conn);
    let revision = revision.ok_or_else(ETag::mismatch)?;
    api.changes().publish(right.id);

    let mut changed = right.into_resource();
    changed.revision = revision;
    if let Some(name) = body.name {
        changed.name = name;
    }
    if let Some(seconds) = body.inactivity_seconds {
        changed.inactivity_seconds = Some(seconds);
        if let Some(run) = changed.live() {
            let path = format!("/internal/instances/{}/timeout", run.id);
            match api.ws_manager().put(&path, &SetTimeout { inactivity_seconds: seconds }).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(answer(StatusCode::OK, &changed))
}
