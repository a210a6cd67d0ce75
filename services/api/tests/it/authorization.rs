//! Every operation, asked by everybody: nobody, a stranger, a member and an owner of the organization that pays, the owner of the thing, and an
//! administrator. An operation that is missing here fails the test, so none is added without saying who may do it.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{Client, Service, service};

/// What an asker gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// Anything but 401, 403 and 404.
    Yes,
    /// 401.
    SignIn,
    /// 403.
    No,
    /// 404, as if it did not exist.
    Hidden,
}
use May::{Hidden, No, SignIn, Yes};

struct Operation {
    id: &'static str,
    method: Method,
    path: &'static str,
    body: Option<fn() -> Value>,
    /// Nobody, stranger, member, organization owner, owner of the thing, administrator.
    may: [May; 6],
}

fn operation(
    id: &'static str,
    method: Method,
    path: &'static str,
    body: Option<fn() -> Value>,
    may: [May; 6],
) -> Operation {
    Operation { id, method, path, body, may }
}

const ANYBODY: [May; 6] = [Yes; 6];
const SIGNED_IN: [May; 6] = [SignIn, Yes, Yes, Yes, Yes, Yes];
const ADMIN: [May; 6] = [SignIn, No, No, No, No, Yes];
const SEE_AND_STOP: [May; 6] = [SignIn, Hidden, Hidden, Yes, Yes, Yes];
const OWN: [May; 6] = [SignIn, Hidden, Hidden, No, Yes, Yes];
/// The owner of the thing is a plain member of the organization.
const ORGANIZATION_READ: [May; 6] = [SignIn, Hidden, Yes, Yes, Yes, Yes];
const ORGANIZATION_WRITE: [May; 6] = [SignIn, Hidden, No, Yes, No, Yes];
/// Somebody's own tokens and sessions: nobody else's, not for an administrator either.
const PERSONAL: [May; 6] = [SignIn, Hidden, Hidden, Hidden, Yes, Hidden];

fn operations() -> Vec<Operation> {
    let login: fn() -> Value = || json!({});
    vec![
        operation("show_setup", Method::GET, "/api/v1/setup", None, ANYBODY),
        operation("create_setup", Method::POST, "/api/v1/setup", Some(login), ANYBODY),
        operation("create_session", Method::POST, "/api/v1/sessions", Some(login), ANYBODY),
        operation("show_server", Method::GET, "/api/v1/server", None, SIGNED_IN),
        operation("list_sessions", Method::GET, "/api/v1/sessions", None, SIGNED_IN),
        operation("delete_session", Method::DELETE, "/api/v1/sessions/{session}", None, PERSONAL),
        operation("list_users", Method::GET, "/api/v1/users", None, ADMIN),
        operation(
            "create_user",
            Method::POST,
            "/api/v1/users",
            Some(|| json!({ "name": "x", "email": "x", "password": "x" })),
            ADMIN,
        ),
        operation("show_me", Method::GET, "/api/v1/users/me", None, SIGNED_IN),
        operation("update_me", Method::PATCH, "/api/v1/users/me", Some(|| json!({})), SIGNED_IN),
        operation(
            "change_password",
            Method::PUT,
            "/api/v1/users/me/password",
            Some(|| json!({ "new": "short" })),
            SIGNED_IN,
        ),
        operation("list_tokens", Method::GET, "/api/v1/tokens", None, SIGNED_IN),
        operation("create_token", Method::POST, "/api/v1/tokens", Some(|| json!({ "name": "x" })), SIGNED_IN),
        operation("revoke_token", Method::DELETE, "/api/v1/tokens/{token}", None, PERSONAL),
        operation("list_organizations", Method::GET, "/api/v1/organizations", None, SIGNED_IN),
        operation(
            "create_organization",
            Method::POST,
            "/api/v1/organizations",
            Some(|| json!({ "name": "x" })),
            SIGNED_IN,
        ),
        operation("show_organization", Method::GET, "/api/v1/organizations/{organization}", None, ORGANIZATION_READ),
        operation(
            "update_organization",
            Method::PATCH,
            "/api/v1/organizations/{organization}",
            Some(|| json!({})),
            ORGANIZATION_WRITE,
        ),
        operation("list_members", Method::GET, "/api/v1/organizations/{organization}/members", None, ORGANIZATION_READ),
        operation(
            "add_member",
            Method::POST,
            "/api/v1/organizations/{organization}/members",
            Some(|| json!({ "email": "nobody@example.com", "role": "member" })),
            ORGANIZATION_WRITE,
        ),
        operation(
            "update_member",
            Method::PUT,
            "/api/v1/organizations/{organization}/members/{user}",
            Some(|| json!({ "role": "member" })),
            ORGANIZATION_WRITE,
        ),
        operation(
            "remove_member",
            Method::DELETE,
            "/api/v1/organizations/{organization}/members/{user}",
            None,
            ORGANIZATION_WRITE,
        ),
        operation("list_classes", Method::GET, "/api/v1/classes", None, SIGNED_IN),
        operation("list_workspaces", Method::GET, "/api/v1/workspaces", None, SIGNED_IN),
        operation(
            "create_workspace",
            Method::POST,
            "/api/v1/workspaces",
            Some(|| json!({ "context_url": "https://git.example.com/a/b", "start": false })),
            SIGNED_IN,
        ),
        operation("watch_workspaces", Method::GET, "/api/v1/workspaces/watch", None, SIGNED_IN),
        operation("show_workspace", Method::GET, "/api/v1/workspaces/{workspace}", None, SEE_AND_STOP),
        operation("update_workspace", Method::PATCH, "/api/v1/workspaces/{workspace}", Some(|| json!({})), OWN),
        operation("delete_workspace", Method::DELETE, "/api/v1/workspaces/{workspace}", None, SEE_AND_STOP),
        operation("start_workspace", Method::POST, "/api/v1/workspaces/{workspace}/start", Some(|| json!({})), OWN),
        operation(
            "stop_workspace",
            Method::POST,
            "/api/v1/workspaces/{workspace}/stop",
            Some(|| json!({})),
            SEE_AND_STOP,
        ),
        operation("show_receipt", Method::GET, "/api/v1/workspaces/{workspace}/receipt", None, SEE_AND_STOP),
        operation("watch_workspace", Method::GET, "/api/v1/workspaces/{workspace}/watch", None, SEE_AND_STOP),
        operation("list_audit", Method::GET, "/api/v1/audit", None, ADMIN),
    ]
}

/// The people, and the things that the paths name.
struct World<'a> {
    service: &'a Service,
    askers: [Client; 6],
    owner: crate::support::Person,
    organization: String,
}

async fn world(service: &Service) -> World<'_> {
    let (stranger, member) = (service.person("stranger").await, service.person("member").await);
    let (boss, owner) = (service.person("boss").await, service.person("owner").await);
    let made = boss.client.post("/api/v1/organizations", json!({ "name": "Team" })).await;
    let organization = made.text("id");
    let members = format!("/api/v1/organizations/{organization}/members");
    for email in ["member@example.com", "owner@example.com"] {
        let added = boss.client.post(&members, json!({ "email": email, "role": "member" })).await;
        assert_eq!(added.status, 201, "{added:?}");
    }
    let askers = [service.nobody(), stranger.client, member.client, boss.client, owner.client.clone(), service.root()];
    World { service, askers, owner, organization }
}

impl World<'_> {
    /// A path whose things are new, so that one asker's deletion does not hide them from the next.
    async fn path(&self, template: &str) -> String {
        let mut path = template.replace("{organization}", &self.organization);
        if path.contains("{workspace}") {
            let made =
                self.owner.client.workspace(json!({ "start": false, "organization_id": self.organization })).await;
            path = path.replace("{workspace}", &made.text("id"));
        }
        if path.contains("{token}") {
            let made = self.owner.client.post("/api/v1/tokens", json!({ "name": "x" })).await;
            path = path.replace("{token}", &made.text("id"));
        }
        if path.contains("{session}") {
            self.service.browser(self.owner.id).await;
            let sessions = self.owner.client.get("/api/v1/sessions").await;
            path = path.replace("{session}", sessions.body["items"][0]["id"].as_str().unwrap());
        }
        if path.contains("{user}") {
            let fresh = self
                .service
                .person(&format!(
                    "fresh-{}",
                    berth_ids::uuid_v7(&berth_clock::SystemClock, &berth_clock::SystemEntropy)
                ))
                .await;
            let members = format!("/api/v1/organizations/{}/members", self.organization);
            let boss = &self.askers[3];
            let added = boss.post(&members, json!({ "email": fresh.email, "role": "member" })).await;
            assert_eq!(added.status, 201, "{added:?}");
            path = path.replace("{user}", &fresh.id.to_string());
        }
        path
    }
}

#[tokio::test]
async fn every_operation_lets_in_whom_it_should_and_nobody_else() {
    let service = service().await;
    let world = world(&service).await;
    let names = ["nobody", "stranger", "member", "organization owner", "owner", "administrator"];
    let mut wrong = Vec::new();
    for operation in operations() {
        for ((client, name), may) in world.askers.iter().zip(names).zip(operation.may) {
            let path = world.path(operation.path).await;
            let status = if operation.id.starts_with("watch_") {
                client.events(&path).await.0
            } else {
                client.send(operation.method.clone(), &path, operation.body.map(|body| body())).await.status
            };
            let right = match may {
                Yes => !matches!(status, 401 | 403 | 404) && status < 500,
                SignIn => status == 401,
                No => status == 403,
                Hidden => status == 404,
            };
            if !right {
                wrong.push(format!("{} as {name}: {may:?} expected, got {status}", operation.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_operation_is_without_a_test() {
    let document = serde_json::to_value(berth_api::openapi(Vec::new())).unwrap();
    let mut documented = BTreeSet::new();
    let mut open = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            documented.insert((id.to_owned(), method.to_uppercase(), path.clone()));
            if operation.get("security").is_some() {
                open.insert(id.to_owned());
            }
        }
    }
    let tested: BTreeSet<(String, String, String)> = operations()
        .into_iter()
        .map(|operation| (operation.id.to_owned(), operation.method.to_string(), operation.path.to_owned()))
        .collect();
    assert_eq!(
        documented, tested,
        "each operation of the document has a line in operations(), and the other way round"
    );
    let open_to_all: BTreeSet<String> = operations()
        .iter()
        .filter(|operation| operation.may == ANYBODY)
        .map(|operation| operation.id.to_owned())
        .collect();
    assert_eq!(open, open_to_all, "only what says so in the document needs no credentials");
}
