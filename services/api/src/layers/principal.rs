//! Authentication and rate limits: every authenticated request goes through here once.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use berth_authz::{Credential, Presented, Principal, PrincipalExtension};
use berth_http::Problem;

use super::limits::{Allowance, Key, Rate};
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
    let principal = match api.authenticator().authenticate(&presented).await {
        Ok(principal) => principal,
        Err(problem) => {
            let (per_second, burst) = FAILURES;
            let key = Key::Failures(Caller::from_parts(&parts).address);
            api.limits().take(key, Rate::per_second(per_second, burst), api.now())?;
            return Err(problem);
        }
    };
    let allowance = count(api, &principal)?;
    parts.extensions.insert(PrincipalExtension(principal));
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(allowance) = allowance {
        allowance.write(response.headers_mut());
    }
    Ok(response)
}

/// Takes a request from its user's allowance; none: root at the socket, who is the installation itself.
///
/// # Errors
/// 429, with the time to wait.
pub(crate) fn count(api: &Api, principal: &Principal) -> Result<Option<Allowance>, Problem> {
    match principal.credential {
        Credential::Local => Ok(None),
        Credential::Token { .. } | Credential::Session { .. } => {
            let rate = Rate::per_second(api.config().requests_per_second, api.config().request_burst);
            api.limits().take(Key::User(principal.user_id), rate, api.now()).map(Some)
        }
    }
}
