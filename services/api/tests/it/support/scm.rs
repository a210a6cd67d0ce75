//! scm, as far as api asks it: every URL on git.example.com is a repository; those of `inner` are allowed a private host, those named
//! `withdrawn` only until they have been resolved.

use axum::Router;
use axum::routing::post;
use berth_api_types::context::{Context, ContextType, Provider, ResolvedContext};
use berth_api_types::internal::{PrivateHosts, PrivateHostsQuery, ResolveContext, ResolveContextReply};
use berth_http::{Json, Problem};

pub(crate) fn router() -> Router {
    Router::new()
        .route("/internal/contexts/resolve", post(resolve))
        .route("/internal/private-hosts", post(private_hosts))
}

const INNER_HOST: &str = "git.example.com:443";

async fn private_hosts(Json(question): Json<PrivateHostsQuery>) -> Json<PrivateHosts> {
    let kept = question.clone_url.contains("/inner/") && !question.clone_url.contains("withdrawn");
    Json(PrivateHosts { allow_private_hosts: kept.then(|| INNER_HOST.to_owned()).into_iter().collect() })
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
    let allow_private_hosts = (owner == "inner").then(|| INNER_HOST.to_owned()).into_iter().collect();
    Ok(Json(ResolveContextReply { resolved, allow_private_hosts }))
}
