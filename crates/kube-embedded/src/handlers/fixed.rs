//! Paths that are no resources: health, version, discovery, OpenAPI.

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::auth::User;
use crate::discovery;
use crate::error::{ApiError, ApiResult};
use crate::openapi;
use crate::server::Api;

/// The Kubernetes version whose behaviour this server has.
pub(crate) const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.3+berth");

/// Whether a path is answered without knowing the caller.
pub(crate) fn is_open_to_all(path: &str) -> bool {
    let is_health = |name: &str| {
        path.strip_prefix('/')
            .and_then(|path| path.strip_prefix(name))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path == "/version" || ["healthz", "livez", "readyz"].into_iter().any(is_health)
}

/// The answer, or `None` if the path may name a resource.
pub(crate) fn answer(api: &Api, user: &User, parts: &Parts) -> Option<ApiResult<Response>> {
    let path = match parts.uri.path() {
        "/" => "/",
        path => path.trim_end_matches('/'),
    };
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let known = matches!(
        segments.as_slice(),
        [""] | ["version" | "healthz" | "livez" | "readyz" | "api" | "apis"]
            | ["healthz" | "livez" | "readyz", ..]
            | ["openapi", ..]
            | ["api", _]
            | ["apis", _]
            | ["apis", _, _]
    );
    if !known {
        return None;
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Some(Err(ApiError::method_not_allowed()));
    }
    // Discovery is for whoever has a name; health and version for everyone.
    if user.is_anonymous() && !is_open_to_all(path) {
        return Some(Err(ApiError::forbidden_path(&user.name, "get", path)));
    }
    Some(match segments.as_slice() {
        [""] => Ok(json(&discovery::root(&api.registry.table()))),
        ["version"] => Ok(json(&version())),
        ["healthz" | "livez" | "readyz", ..] => Ok(health(&segments, parts.uri.query())),
        ["api"] => discovery::api(api, &parts.headers),
        ["apis"] => discovery::apis(api, &parts.headers),
        ["api", version] => discovery::resources(api, "", version),
        ["apis", group] => discovery::group(api, group),
        ["apis", group, version] => discovery::resources(api, group, version),
        ["openapi", "v2"] => Ok(openapi::version_2()),
        ["openapi", "v3"] => Ok(openapi::index(api)),
        ["openapi", "v3", rest @ ..] => openapi::document(api, &rest.join("/"), parts),
        _ => Err(ApiError::path_not_found()),
    })
}

pub(crate) fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(crate::output::table::to_bytes(value)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn version() -> serde_json::Value {
    let (major, minor, git) = VERSION;
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": "35",
        "gitVersion": git, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn health(segments: &[&str], query: Option<&str>) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("verbose")));
    let (status, text) = match segments {
        [_] if verbose => (StatusCode::OK, format!("[+]ping ok\n[+]store ok\n{} check passed\n", segments[0])),
        [_] | [_, "ping" | "store"] => (StatusCode::OK, "ok".to_owned()),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
