//! `GET /api/v1/workspaces`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use berth_api_types::public::{Page, Phase, Workspace};
use berth_authz::{Authenticated, Authorized, Principal};
use berth_http::{PageQuery, Problem, Query};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::domain::authorize::{Installation, ListAllWorkspaces, ListOrganizationWorkspaces, ReadOrganization};
use crate::domain::instance::parse_phase;
use crate::http::caller::Caller;
use crate::routes::organizations;
use crate::state::Api;
use crate::store;
use crate::store::workspaces::{ListFilter, ListScope};

/// Whose workspaces.
#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct ScopeQuery {
    /// `me`, or `all` for administrators; without it `me`, and with an organization `all` for its owners.
    #[serde(default)]
    #[param(pattern = "^(me|all)$")]
    owner: Option<String>,
    /// Only those that this organization pays for.
    #[serde(default)]
    organization: Option<String>,
}

/// Which workspaces are wanted.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct FilterQuery {
    /// In one of these phases; may be given several times.
    #[serde(default)]
    #[param(value_type = Option<Vec<Phase>>)]
    phase: Vec<String>,
    /// Of this class.
    #[serde(default)]
    class: Option<String>,
    /// Of this repository: its web URL, or `host/owner/name`.
    #[serde(default)]
    repository: Option<String>,
    /// With a name that begins like this.
    #[serde(default)]
    name: Option<String>,
}

/// The right to list what the query asks for.
pub(super) async fn scope(
    api: &Api,
    principal: &Arc<Principal>,
    caller: &Caller,
    query: &ScopeQuery,
) -> Result<ListScope, Problem> {
    match (query.owner.as_deref(), query.organization.as_deref()) {
        (None | Some("me"), None) => Ok(ListScope::Own(principal.user_id)),
        (Some("all"), None) => {
            let right = Authorized::<Installation, ListAllWorkspaces>::check(principal, Installation)?;
            Ok(ListScope::All(right))
        }
        (Some("me"), Some(organization)) => {
            let right = organizations::load::<ReadOrganization>(api, principal, caller, organization).await?;
            Ok(ListScope::OwnIn(right))
        }
        (None | Some("all"), Some(organization)) => {
            let right = organizations::load::<ListOrganizationWorkspaces>(api, principal, caller, organization).await?;
            Ok(ListScope::Organization(right))
        }
        (Some(_), _) => Err(Problem::bad_request("invalid_query", "owner is `me` or `all`")),
    }
}

/// Workspaces, the newest first.
#[utoipa::path(
    get, path = "/api/v1/workspaces", tag = "workspaces", operation_id = "list_workspaces",
    params(ScopeQuery, FilterQuery, PageQuery),
    responses((status = 200, body = Page<Workspace>), (status = "default", response = berth_http::ProblemResponse))
)]
pub(in crate::routes) async fn list(
    State(api): State<Api>,
    Authenticated(principal): Authenticated,
    caller: Caller,
    Query(whose): Query<ScopeQuery>,
    Query(query): Query<FilterQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Response, Problem> {
    let scope = scope(&api, &principal, &caller, &whose).await?;
    let paging = page.of("workspaces", &(whose, &query))?;
    let filter = ListFilter {
        phases: phases(&query.phase)?,
        class: query.class,
        repository: query.repository,
        name: query.name,
    };
    let page = api.lists().page(scope, filter, paging).await.map_err(store::shared)?;
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(([json], page).into_response())
}

fn phases(texts: &[String]) -> Result<Option<Vec<Phase>>, Problem> {
    let phases: Result<Vec<Phase>, Problem> = texts
        .iter()
        .map(|text| {
            parse_phase(text).ok_or_else(|| {
                let detail = "phase is one of Pending, Imagebuild, Creating, Initializing, Running, Stopping, Stopped";
                Problem::bad_request("invalid_query", detail).with_error("phase", format!("{text:?} is no phase"))
            })
        })
        .collect();
    phases.map(|phases| (!phases.is_empty()).then_some(phases))
}
