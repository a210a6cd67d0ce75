//! Who may do what to which workspace, and the way to it.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use berth_api_types::internal::{Act, Authorize, Authorized, WorkspaceAction};
use berth_api_types::public::Phase;
use berth_authz::Presented;
use berth_http::proxy::Forwarded;
use berth_http::{Path, Problem, Upgraded};
use berth_ids::InstanceId;
use berth_supervisor_client::SupervisorClient;
use tokio::sync::watch;

use crate::Gateway;
use crate::instances::Known;

/// How long an instance that api knows may be missing in ws-manager's watch: it was made a moment ago.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);

/// What a client presented, and which workspace it means. Its `Origin` was checked.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    shown: Presented,
    workspace: String,
    /// Nobody has counted this request against their allowance yet.
    uncounted: bool,
}

impl FromRequestParts<Gateway> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        let shown = Presented::from_parts(parts)?;
        if let Some(origin) = &shown.origin {
            let known = crate::config::origin(origin).is_some_and(|origin| gateway.0.origins.contains(&origin));
            if !known {
                return Err(Problem::forbidden("this page's origin is not among gateway.allowed_origins"));
            }
        }
        let Path(parameters) = Path::<Vec<(String, String)>>::from_request_parts(parts, gateway).await?;
        let workspace = parameters.into_iter().find(|(name, _)| name == "workspace").map(|(_, value)| value);
        let uncounted = gateway.0.at_the_edge && parts.extensions.get::<Forwarded>().is_none();
        Ok(Self { shown, workspace: workspace.unwrap_or_default(), uncounted })
    }
}

/// A right that was checked, to a running instance.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    gateway: Gateway,
    caller: Caller,
    action: WorkspaceAction,
    pub(crate) instance: InstanceId,
    node: Option<String>,
    pub(crate) news: watch::Receiver<Option<Known>>,
}

impl Caller {
    /// As [`Self::ask`], the first time for a request.
    async fn authorize(&mut self, gateway: &Gateway, action: WorkspaceAction) -> Result<Authorized, Problem> {
        let answer = self.ask(gateway, action, None).await;
        self.uncounted = false;
        answer.map_err(|problem| match problem.status() {
            // An allowance grows by one a second at least.
            StatusCode::TOO_MANY_REQUESTS => problem.with_header(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => problem,
        })
    }

    async fn ask(&self, gateway: &Gateway, action: WorkspaceAction, act: Option<Act>) -> Result<Authorized, Problem> {
        let question = Authorize { uncounted: self.uncounted, act, ..self.shown.may(action, &self.workspace) };
        Ok(gateway.0.dependencies.api.post("/internal/authorize", &question).await?)
    }

    /// The right to do this to the workspace's newest instance, whether it runs or not.
    pub(crate) async fn instance(mut self, gateway: &Gateway, action: WorkspaceAction) -> Result<Access, Problem> {
        let authorized = self.authorize(gateway, action).await?;
        let Some(instance) = authorized.instance_id else {
            return Err(not_running(&self.workspace, Phase::Stopped, ""));
        };
        let news = gateway.0.instances.subscribe(instance);
        let gateway = gateway.clone();
        Ok(Access { gateway, caller: self, action, instance, node: authorized.node, news })
    }

    /// The right to do this to a running workspace. With `wait`, a workspace that is being started is waited for.
    pub(crate) async fn running(
        mut self,
        gateway: &Gateway,
        action: WorkspaceAction,
        wait: bool,
    ) -> Result<Access, Problem> {
        let authorized = self.authorize(gateway, action).await?;
        let Some(instance) = authorized.instance_id else {
            return Err(not_running(&self.workspace, Phase::Stopped, ""));
        };
        let mut news = gateway.0.instances.subscribe(instance);
        let known = loop {
            let known = news.borrow_and_update().clone();
            match known {
                Some(known) if known.phase == Phase::Running => break known,
                Some(known) if known.phase > Phase::Running || !wait => {
                    return Err(not_running(&self.workspace, known.phase, &known.reason));
                }
                None if authorized.phase >= Phase::Stopping || !wait && authorized.phase != Phase::Running => {
                    return Err(not_running(&self.workspace, authorized.phase, ""));
                }
                Some(_) => changed(&mut news).await?,
                None => match tokio::time::timeout(APPEARS_WITHIN, changed(&mut news)).await {
                    Ok(result) => result?,
                    Err(_) => return Err(not_running(&self.workspace, authorized.phase, "")),
                },
            }
        };
        let node = known.node.or(authorized.node);
        Ok(Access { gateway: gateway.clone(), caller: self, action, instance, node, news })
    }
}

pub(crate) async fn changed(news: &mut watch::Receiver<Option<Known>>) -> Result<(), Problem> {
    news.changed().await.map_err(|_| Problem::unavailable("the workspace's state is not known; try again"))
}

fn not_running(workspace: &str, phase: Phase, reason: &str) -> Problem {
    let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let advice = match phase {
        Phase::Stopped | Phase::Stopping => "start it first",
        _ => "wait until it runs",
    };
    let detail = format!("workspace {workspace} is {phase:?}{because}: {advice}");
    Problem::conflict("workspace_not_running", detail)
}

impl Access {
    /// A connection to the workspace's supervisor.
    pub(crate) async fn supervisor(&self) -> Result<SupervisorClient<Upgraded>, Problem> {
        let path = format!("/internal/instances/{}/supervisor", self.instance);
        let stream = self.node_client()?.upgrade(&path, "berth-supervisor").await?;
        Ok(SupervisorClient::new(stream))
    }

    /// The agent of the node it runs, or last ran, on.
    pub(crate) fn node_client(&self) -> Result<&berth_http::InternalClient, Problem> {
        let placed = self.news.borrow().as_ref().and_then(|known| known.node.clone());
        let node = placed.or_else(|| self.node.clone());
        let client = self.gateway.0.dependencies.nodes.client(node.as_deref());
        client.ok_or_else(|| {
            let node = node.as_deref().unwrap_or("(not known)");
            Problem::unavailable(format!("the gateway knows no way to node {node}"))
        })
    }

    /// Writes into the audit log what the user is about to do; without the row it is not done.
    pub(crate) async fn audit(&self, name: &str, detail: serde_json::Value) -> Result<(), Problem> {
        let act = Act { name: name.to_owned(), detail };
        self.caller.ask(&self.gateway, self.action, Some(act)).await.map(|_| ())
    }

    /// The user did something.
    pub(crate) fn mark(&self) {
        self.gateway.0.activity.mark(self.instance);
    }

    /// Resolves when the right is gone. A check that cannot be made decides nothing: the right was there a minute ago.
    pub(crate) async fn revoked(&self) {
        let pause = Duration::from_secs(self.gateway.0.config.recheck_seconds);
        loop {
            tokio::time::sleep(pause).await;
            match self.caller.ask(&self.gateway, self.action, None).await {
                Err(problem) if problem.status().is_client_error() => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    pub(crate) fn ping(&self) -> Duration {
        Duration::from_secs(self.gateway.0.config.ping_seconds)
    }
}

/// A refusal of the supervisor, or a broken connection to it, as a problem.
pub(crate) fn problem(error: berth_supervisor_client::ClientError) -> Problem {
    use berth_supervisor_client::ClientError;
    use berth_supervisor_client::protocol::ErrorCode;
    match error {
        ClientError::Refused { code, message } => {
            let status = match code {
                ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
                ErrorCode::NotFound => StatusCode::NOT_FOUND,
                ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
                ErrorCode::ConnectionRefused | ErrorCode::Failed => StatusCode::UNPROCESSABLE_ENTITY,
                ErrorCode::LimitReached => StatusCode::INSUFFICIENT_STORAGE,
                ErrorCode::Conflict => StatusCode::CONFLICT,
                ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            };
            Problem::new(status, word(code), message)
        }
        ClientError::Source(error) => Problem::bad_request("broken_upload", "the upload broke off").with_source(error),
        ClientError::Closed => Problem::conflict("workspace_stopped", "the workspace stopped, or is stopping"),
        error => Problem::unavailable("the workspace's supervisor cannot be reached; try again").with_source(error),
    }
}

/// A name from a client as the audit log keeps it: readable, and not a whole page.
pub(crate) fn kept(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The API's stable code for a code of the supervisor.
pub(crate) const fn word(code: berth_supervisor_client::protocol::ErrorCode) -> &'static str {
    use berth_supervisor_client::protocol::ErrorCode;
    match code {
        ErrorCode::BadRequest => "bad_request",
        ErrorCode::NotFound => "not_found",
        ErrorCode::PermissionDenied => "permission_denied",
        ErrorCode::ConnectionRefused => "connection_refused",
        ErrorCode::LimitReached => "limit_reached",
        ErrorCode::Conflict => "conflict",
        ErrorCode::Timeout => "timeout",
        ErrorCode::Failed => "failed",
    }
}
