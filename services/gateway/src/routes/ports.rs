//! The ports that programs in a workspace listen on.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use berth_api_types::internal::WorkspaceAction;
use berth_http::{Json, Problem, sse};
use berth_supervisor_client::protocol::{Event, ListeningPort, Reply, Request};
use berth_supervisor_client::{Incoming, SupervisorClient};
use serde::Serialize;

use super::Items;
use crate::access::{Caller, problem};
use crate::relay::{self, Session};
use crate::websocket::Upgrade;
use crate::{Gateway, instances};

/// A port that something listens on.
#[derive(Debug, Serialize)]
pub(super) struct Port {
    port: u16,
    /// The first of `addresses`.
    address: String,
    addresses: Vec<String>,
    process: Option<String>,
    pid: Option<u32>,
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

/// `GET /ports`.
pub(super) async fn list(State(gateway): State<Gateway>, caller: Caller) -> Result<Json<Items<Port>>, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Connect, false).await?;
    let ports = access.supervisor().await?.ports().await.map_err(problem)?;
    Ok(Json(items(ports)))
}

/// `GET /ports/watch`: the list, and again whenever it changes, as server-sent events. Ends when the workspace stops.
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

/// `GET /ports/{port}/connect`: the bytes of one connection, by websocket.
pub(super) async fn connect(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path((_, port)): Path<(String, u16)>,
    Upgrade(upgrade): Upgrade,
) -> Result<Response, Problem> {
    let access = caller.running(&gateway, WorkspaceAction::Connect, false).await?;
    access.mark();
    let session = Session { request: Request::Tunnel { port }, resize: None, marks_activity: true };
    Ok(relay::upgrade(upgrade, access, session))
}
