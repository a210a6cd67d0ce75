//! `POST /internal/contexts/resolve`: from a context URL to a commit.

use axum::extract::State;
use berth_api_types::internal::{ResolveContext, ResolveContextReply};
use berth_http::{Json, Problem};

use crate::State as Service;
use crate::resolver::ResolverError;

/// Resolves a context URL with the credentials of its user.
pub(crate) async fn handler(
    State(state): State<Service>,
    Json(body): Json<ResolveContext>,
) -> Result<Json<ResolveContextReply>, Problem> {
    let context = state.resolver.parse(&body.url).map_err(ResolverError::from)?;
    let login = {
        let mut conn = state.pool.acquire().await.map_err(Problem::internal)?;
        let host = state.resolver.hosts.credential_host(&context.host).unwrap_or_else(|_| context.host.clone());
        state.vault.login(&mut conn, body.user_id, &host).await?
    };
    let resolved = state.resolver.resolve(context, login.as_ref()).await?;
    let allow_private_hosts = state.allowed_private_host(&resolved.context.clone_url).into_iter().collect();
    Ok(Json(ResolveContextReply { resolved, allow_private_hosts }))
}
