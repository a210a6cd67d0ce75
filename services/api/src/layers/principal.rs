//! Authentication and rate limits: every authenticated request goes through here once.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use berth_authz::{Credential, Presented, PrincipalExtension};
use berth_http::Problem;

use super::limits::{Key, Rate};
use crate::http::caller::Caller;
use crate::state::Api;

/// Wrong credentials from one address: sustained rate and burst.
const FAILURES: (u32, u32) = (5, 100);

pub(crate) async fn layer(State(api): State<Api>, request: Request, next: Next) -> Response {
    match admit(&api, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn admit(api: &Api, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let presented = Presented::from_parts(&parts)?;
    let now = api.now();
    let principal = match api.authenticator().authenticate(&presented).await {
        Ok(principal) => principal,
        Err(problem) => {
            let (per_second, burst) = FAILURES;
            let key = Key::Failures(Caller::from_parts(&parts).address);
            api.limits().take(key, Rate::per_second(per_second, burst), now)?;
            return Err(problem);
        }
    };
    // Root at the socket is the installation itself.
    let allowance = match principal.credential {
        Credential::Local => None,
        Credential::Token { .. } | Credential::Session { .. } => {
            let rate = Rate::per_second(api.config().requests_per_second, api.config().request_burst);
            Some(api.limits().take(Key::User(principal.user_id), rate, now)?)
        }
    };
    parts.extensions.insert(PrincipalExtension(principal));
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(allowance) = allowance {
        allowance.write(response.headers_mut());
    }
    Ok(response)
}
