//! scm, as far as api asks it: every URL on git.example.com is a repository.

use axum::Router;
use axum::routing::post;
use berth_api_types::context::{Context, ContextType, Provider, ResolvedContext};
use berth_api_types::internal::{ResolveContext, ResolveContextReply};
use berth_http::{Json, Problem};

pub(crate) fn router() -> Router {
    Router::new().route("/internal/contexts/resolve", post(resolve))
}

async fn resolve(Json(question): Json<ResolveContext>) -> Result<Json<ResolveContextReply>, Problem> {
    let rest = question.url.strip_prefix("https://git.example.com/");
    let Some((owner, name)) = rest.and_then(|rest| rest.rsplit_once('/')) else {
        return Err(Problem::unprocessable("unknown_host", "this git host is not known: an administrator can add it"));
    };
    let context = Context {
        provider: Provider::Git,
        host: "git.example.com".into(),
        owner: owner.into(),
        name: name.into(),
        kind: ContextType::Repository,
        reference: None,
        path: None,
        line: None,
        number: None,
        clone_url: format!("https://git.example.com/{owner}/{name}.git"),
        web_url: format!("https://git.example.com/{owner}/{name}"),
    };
    let resolved = ResolvedContext {
        context,
        fetch_ref: Some("refs/heads/main".into()),
        branch: Some("main".into()),
        commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        default_branch: Some("main".into()),
    };
    Ok(Json(ResolveContextReply { resolved, allow_private_hosts: vec![] }))
}
