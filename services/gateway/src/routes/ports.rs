//! The ports that programs in a workspace listen on.

use std::num::NonZeroU16;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Path, Problem, sse};
use berth_supervisor_client::protocol::{Event, ListeningPort, Reply, Request};
use berth_supervisor_client::{Incoming, SupervisorClient};
use serde::Serialize;

use super::Items;
use crate::access::{Caller, problem};
use crate::relay::{self, Session};
use crate::websocket::Upgrade;
use crate::{Gateway, instances};

/// A port that something listens on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Port {
    /// Its number.
    port: u16,
    /// The first of `addresses`.
    address: String,
    /// Local addresses, for example `127.0.0.1`, `::`.
    addresses: Vec<String>,
    /// Who listens, where that can be seen.
    process: Option<String>,
    /// Its process, inside.
    pid: Option<u32>,
    /// Its user, inside.
    uid: u32,
}

impl From<ListeningPort> for Port {
    fn from(port: ListeningPort) -> Self {
        Self {
            port: port.port,
            address: port.addresses.first().cloned().unwrap_or_default(),
            addresses: port.addresses,
            process: port.process,
            pid: port.pid,
            uid: port.uid,
        }
    }
}

fn items(ports: Vec<ListeningPort>) -> Items<Port> {
    Items { items: ports.into_iter().map(Port::from).collect() }
}

/// The ports that programs in a running workspace listen on.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/ports", operation_id = "list_ports", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name.")),
    responses((status = 200, body = Items<Port>), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn list(State(gateway): State<Gateway>, caller: Caller) -> Result<Json<Items<Port>>, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Connect, false).await?;
    let ports = access.supervisor().await?.ports().await.map_err(problem)?;
    Ok(Json(items(ports)))
}

/// The list, then again whenever it changes, as server-sent events. Ends when the workspace stops.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/ports/watch", operation_id = "watch_ports", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name.")),
    responses((status = 200, description = "Each event is a list of ports.", content_type = "text/event-stream", body = String), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn watch(State(gateway): State<Gateway>, caller: Caller) -> Result<Response, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Connect, false).await?;
    let mut client = access.supervisor().await?;
    let first = match client.request(&Request::PortsWatch).await.map_err(problem)? {
        Reply::Ports { ports } => ports,
        _ => return Err(Problem::unavailable("the workspace's supervisor answered something else than was asked")),
    };
    let news =
        futures::stream::unfold(
            client,
            |mut client| async move { next(&mut client).await.map(|ports| (ports, client)) },
        );
    let lists = futures::StreamExt::chain(futures::stream::iter([first]), news);
    let end = async move {
        let stopping = instances::stopping(access.news.clone());
        tokio::select! {
            _ = stopping => {}
            () = access.revoked() => {}
        }
    };
    let lists = futures::StreamExt::take_until(lists, Box::pin(end));
    Ok(sse::json_stream(futures::StreamExt::map(lists, items)).into_response())
}

async fn next(client: &mut SupervisorClient<berth_http::Upgraded>) -> Option<Vec<ListeningPort>> {
    loop {
        match client.receive().await {
            Ok(Some(Incoming::Event(Event::Ports { ports }))) => return Some(ports),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// The bytes of one connection to a port, by websocket.
#[utoipa::path(
    get, path = "/api/v1/workspaces/{workspace}/ports/{port}/connect", operation_id = "connect_port", tag = "inside",
    params(("workspace" = String, Path, description = "Id or name."), ("port" = u16, Path, description = "Its number.", minimum = 1, maximum = 65535)),
    responses((status = 101, description = "A websocket: binary messages, their first byte the channel: 0 input, 1 output, 2 errors, 3 control as JSON."), (status = "default", response = berth_http::ProblemResponse)),
)]
pub(super) async fn connect(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path((_, port)): Path<(String, NonZeroU16)>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let port = port.get();
    let access = caller.running(&gateway, WorkspaceAction::Connect, false).await?;
    access.mark();
    let session = Session { request: Request::Tunnel { port }, resize: None, marks_activity: true };
    Ok(relay::upgrade(upgrade, access, session))
}
