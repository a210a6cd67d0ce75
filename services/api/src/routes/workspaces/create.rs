//! `POST /api/v1/workspaces`.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use berth_api_types::internal::{ResolveContext, ResolveContextReply};
use berth_api_types::public::{CreateWorkspace, Step, Workspace as PublicWorkspace};
use berth_authz::{Authenticated, Authorized};
use berth_http::{Json, Problem, Query};
use berth_ids::WorkspaceId;
use sqlx::PgConnection;

use super::update::{check_inactivity, check_name};
use super::{answer, patience};
use crate::domain::authorize::{OrganizationScope, SpendInOrganization, StartWorkspace};
use crate::domain::instance::step;
use crate::domain::name;
use crate::domain::workspace::{self, Workspace};
use crate::http::caller::Caller;
use crate::http::headers::IdempotencyKey;
use crate::http::wait::Wait;
use crate::layers::idempotency::Held;
use crate::lifecycle::{start, wait};
use crate::routes::organizations;
use crate::state::{Api, commit};
use crate::store;
use crate::store::audit::Record;

/// Names tried before giving up: a random suffix of four characters collides once in a million.
const NAME_TRIES: usize = 8;

/// Makes a workspace from a repository, and starts it. Answers once the start is under way; `?wait=true` waits until the workspace is ready.
#[utoipa::path(
    post, path = "/api/v1/workspaces", tag = "workspaces", operation_id = "create_workspace", request_body = CreateWorkspace,
    params(Wait, IdempotencyKey),
    responses((status = 201, body = PublicWorkspace), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn create(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    held: Option<Extension<Held>>,
    Query(query): Query<Wait>,
    Json(body): Json<CreateWorkspace>,
) -> Result<Response, Problem> {
    let requested_at = api.now();
    let held = held.map(|Extension(held)| held);
    if let Some(id) = held.as_ref().and_then(|held| held.made_before).map(WorkspaceId::from_uuid) {
        // An earlier try of this request made it, and died before it could answer; a job completes its start.
        return finish(&api, id, query).await;
    }
    check(&body)?;

    let question = ResolveContext { url: body.context_url.clone(), user_id: principal.user_id };
    let reply: ResolveContextReply = api.scm().post("/internal/contexts/resolve", &question).await?;
    let resolved_at = api.now();

    let class = class(&api, body.class).await?;
    let right: Authorized<OrganizationScope, SpendInOrganization> = match body.organization_id {
        Some(id) => organizations::load(&api, &principal, &caller, &id.to_string()).await?,
        None => {
            let own = principal.organizations.iter().find(|membership| membership.personal);
            let own = own.ok_or_else(|| Problem::internal("the user has no personal organization"))?;
            let scope = OrganizationScope { id: own.id, personal_of: Some(principal.user_id) };
            Authorized::check(&principal, scope)?
        }
    };
    let authorized_at = api.now();
    let steps = vec![step("resolve", requested_at, resolved_at), step("authorize", resolved_at, authorized_at)];

    let context = &reply.resolved.context;
    let mut made = Workspace {
        id: WorkspaceId::new(api.clock(), api.entropy()),
        name: body.name.clone().unwrap_or_else(|| name::from_repository(&context.name)),
        owner_id: principal.user_id,
        organization_id: right.id,
        context_url: body.context_url,
        repository: context.web_url.clone(),
        repository_key: context.repository_key(),
        reference: reply.resolved.branch.clone().or_else(|| tag(&reply)),
        commit: reply.resolved.commit.clone(),
        checkout_path: context.checkout_path(),
        class,
        image: body.image,
        inactivity_seconds: body.inactivity_seconds,
        revision: 1,
        created_at: requested_at,
        deleting: false,
        instance: None,
    };
    let start = body.start.then(|| steps.clone());
    let making = Making { named: body.name.is_some(), held: held.as_ref(), caller: &caller, start };
    insert(&api, &right, &mut made, &reply, &making).await?;
    api.changes().publish(made.id);
    let Some(run) = &made.instance else { return Ok(created(&made)) };

    start::send(&api, run.id, Some((authorized_at, steps))).await?;
    finish(&api, made.id, query).await
}

/// Validates everything that can be validated without a call.
fn check(body: &CreateWorkspace) -> Result<(), Problem> {
    let field = |code: &'static str, pointer: &'static str, text: String| {
        Problem::unprocessable(code, text.clone()).with_error(pointer, text)
    };
    workspace::check_url(&body.context_url)
        .map_err(|error| field("invalid_context_url", "/context_url", error.to_string()))?;
    workspace::check_image(body.image.as_deref())
        .map_err(|error| field("invalid_image", "/image", error.to_string()))?;
    check_inactivity(body.inactivity_seconds)?;
    body.name.as_deref().map(check_name).transpose()?;
    Ok(())
}

/// The class that was asked for, if it exists.
async fn class(api: &Api, asked: Option<String>) -> Result<String, Problem> {
    let classes = api.classes().await?;
    let name = asked.unwrap_or_else(|| api.config().default_class.clone());
    if classes.iter().any(|class| class.name == name) {
        return Ok(name);
    }
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    let detail = format!("there is no class {name:?}; there are: {}", names.join(", "));
    Err(Problem::unprocessable("unknown_class", detail.clone()).with_error("/class", detail))
}

/// The tag it was made for.
fn tag(reply: &ResolveContextReply) -> Option<String> {
    reply.resolved.fetch_ref.as_deref().and_then(|name| name.strip_prefix("refs/tags/")).map(ToOwned::to_owned)
}

/// Writes the workspace under a free name, and its run if it is to start: all or nothing.
async fn insert(
    api: &Api,
    right: &Authorized<OrganizationScope, SpendInOrganization>,
    made: &mut Workspace,
    reply: &ResolveContextReply,
    request: &Making<'_>,
) -> Result<(), Problem> {
    let Some(steps) = &request.start else {
        let mut conn = api.connection().await?;
        return insert_named(api, &mut conn, right, made, reply, request).await;
    };
    let mut transaction = api.begin().await?;
    insert_named(api, &mut transaction, right, made, reply, request).await?;
    let start = Authorized::<Workspace, StartWorkspace>::check(right.principal(), made.clone())?;
    made.instance = Some(start::insert(api, &mut transaction, &start, made.created_at, steps.clone()).await?);
    commit(transaction).await?;
    Ok(())
}

/// What the rows are made from, besides the workspace.
struct Making<'a> {
    /// The name was asked for.
    named: bool,
    held: Option<&'a Held>,
    caller: &'a Caller,
    /// The steps so far, when it is to start.
    start: Option<Vec<Step>>,
}

async fn insert_named(
    api: &Api,
    conn: &mut PgConnection,
    right: &Authorized<OrganizationScope, SpendInOrganization>,
    made: &mut Workspace,
    reply: &ResolveContextReply,
    request: &Making<'_>,
) -> Result<(), Problem> {
    let base = made.name.clone();
    let key = request.held.map(|held| held.key.as_ref());
    for _ in 0..NAME_TRIES {
        let record = Record::by(right.principal(), request.caller, right.action());
        let record = record.on("workspace", made.id.as_uuid(), &made.name).detail(serde_json::json!({
            "context_url": made.context_url, "class": made.class, "organization_id": made.organization_id, "start": request.start.is_some(),
        }));
        let entry = api.audit_entry(record);
        if store::workspaces::insert(conn, right, made, reply, key, entry).await? {
            return Ok(());
        }
        if request.named {
            break;
        }
        made.name = name::with_suffix(&base, api.entropy());
    }
    let conflict = store::Conflict::WorkspaceName;
    Err(Problem::conflict(conflict.code(), conflict.to_string()).with_error("/name", "it is taken"))
}

/// The answer to a start: at once, or when it is ready or over.
async fn finish(api: &Api, id: WorkspaceId, query: Wait) -> Result<Response, Problem> {
    let patience = if query.wait.unwrap_or(false) { patience(api) } else { std::time::Duration::ZERO };
    Ok(created(&wait::until(api, id, patience, super::start::settled).await?.workspace()?))
}

fn created(workspace: &Workspace) -> Response {
    let mut response = answer(StatusCode::CREATED, workspace);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/workspaces/{}", workspace.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
