use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use berth_api_types::automations::{Automation, AutomationList, AutomationPhase};
use berth_api_types::internal::{Authorize, Authorized, InstanceLifecycle, WorkspaceAction, WorkspaceEvent};
use berth_api_types::public::Phase;
use berth_automations::{Automations, Config, Dependencies, Nodes};
use berth_clock::{SystemClock, SystemEntropy};
use berth_http::{InternalClient, Json, Problem};
use berth_ids::{InstanceId, UserId, WorkspaceId};
use berth_testkit::{Answer, TestDatabase, call, request};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::supervisor::Workspace;

pub(crate) fn id(number: u32) -> uuid::Uuid {
    format!("019ab0e2-7c1e-7d30-8f6b-{number:012x}").parse().unwrap()
}

/// The service, a workspace, and its database. `anna` may do everything to the workspace `demo`, `reader` may look.
pub(crate) struct Service {
    pub(crate) automations: Automations,
    pub(crate) workspace: Arc<Workspace>,
    node: Router,
    pub(crate) database: TestDatabase,
    running: Running,
    shutdown: CancellationToken,
    jobs: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What api knows: the instance that runs.
type Running = Arc<Mutex<Option<InstanceId>>>;

async fn authorize(running: Running, Json(question): Json<Authorize>) -> Result<Json<Authorized>, Problem> {
    let token = question.authorization.as_deref().and_then(|header| header.strip_prefix("Bearer "));
    match token {
        None => return Err(Problem::unauthorized("sign in")),
        Some("anna") if question.workspace == "demo" => {}
        Some("reader") if question.workspace == "demo" && question.action == WorkspaceAction::Read => {}
        Some("reader") if question.workspace == "demo" => return Err(Problem::forbidden("you may only look")),
        Some(_) => return Err(Problem::not_found("no such workspace")),
    }
    Ok(Json(Authorized {
        user_id: UserId::from_uuid(id(1)),
        actor: "anna@example.com".to_owned(),
        credential: "local".to_owned(),
        workspace_id: WorkspaceId::from_uuid(id(2)),
        workspace_name: "demo".to_owned(),
        instance_id: *running.lock().unwrap(),
        phase: Phase::Running,
        node: None,
    }))
}

fn build(database: &TestDatabase, node: &Router, running: &Running) -> Automations {
    let running = Arc::clone(running);
    let api = Router::new().route("/internal/authorize", post(move |question| authorize(running, question)));
    let dependencies = Dependencies {
        api: InternalClient::in_process("api", api),
        ws_manager: InternalClient::in_process("ws-manager", Router::new()),
        nodes: Nodes::Single(InternalClient::in_process("node", node.clone())),
    };
    Automations::new(
        &Config::default(),
        database.pool.clone(),
        SystemClock::shared(),
        Arc::new(SystemEntropy),
        dependencies,
    )
    .unwrap()
}

/// A service whose workspace has this `.berth/automations.yaml`; its jobs run.
pub(crate) async fn service(file: &str) -> Service {
    service_with(&[(".berth/automations.yaml", file)]).await
}

pub(crate) async fn service_with(files: &[(&str, &str)]) -> Service {
    let database = berth_testkit::database_with(&berth_db::MIGRATIONS).await;
    let workspace = Workspace::new(files);
    let node = workspace.router();
    let running = Running::default();
    let automations = build(&database, &node, &running);
    let mut service =
        Service { automations, workspace, node, database, running, shutdown: CancellationToken::new(), jobs: None };
    service.run();
    service
}

/// A service whose only workspace is behind this node agent.
pub(crate) async fn service_at(node: Router) -> Service {
    let mut service = service_with(&[]).await;
    service.kill().await;
    service.node = node;
    service.restart();
    service
}

impl Service {
    fn run(&mut self) {
        let (automations, shutdown) = (self.automations.clone(), self.shutdown.clone());
        self.jobs = Some(tokio::spawn(async move { automations.run_jobs(shutdown).await }));
    }

    /// What the audit log was told of the workspace, the oldest first: who, what, which task or service.
    pub(crate) async fn audited(&self) -> Vec<String> {
        let select =
            "SELECT payload FROM outbox.events WHERE topic = 'audit' AND payload->>'target_id' = $1 ORDER BY id";
        let events = sqlx::query_scalar(select).bind(id(2).to_string()).fetch_all(&self.database.pool).await;
        let events: Vec<serde_json::Value> = events.unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let row = |event: &Value| ["actor", "action", "target"].map(|key| text(&event[key])).join(" ");
        events.iter().map(row).collect()
    }

    /// The jobs end at once, wherever they are, as when the process is killed.
    pub(crate) async fn kill(&mut self) {
        if let Some(jobs) = self.jobs.take() {
            jobs.abort();
            let _ = jobs.await;
        }
    }

    /// A new process with the same database.
    pub(crate) fn restart(&mut self) {
        self.automations = build(&self.database, &self.node, &self.running);
        self.run();
    }

    /// The n-th instance runs, as api says before its event has come here.
    pub(crate) fn runs_says_api(&self, number: u32) {
        *self.running.lock().unwrap() = Some(InstanceId::from_uuid(id(100 + number)));
    }

    /// Publishes an event of the n-th instance.
    pub(crate) async fn instance(&self, number: u32, phase: Phase, first_start: bool) {
        let event = InstanceLifecycle {
            instance_id: InstanceId::from_uuid(id(100 + number)),
            workspace_id: WorkspaceId::from_uuid(id(2)),
            workspace_name: "demo".to_owned(),
            owner_id: UserId::from_uuid(id(1)),
            organization_id: id(3).to_string().parse().unwrap(),
            repository: "github.com/team/app".to_owned(),
            class: "small".to_owned(),
            phase,
            first_start,
            started_at: None,
            stopped_at: None,
            version: match phase {
                Phase::Pending => 1,
                Phase::Running => 5,
                Phase::Stopped => 5,
                _ => 4,
            },
        };
        let mut transaction = self.database.pool.begin().await.unwrap();
        berth_db::outbox::publish(&mut transaction, "instance", &event.instance_id.to_string(), &event).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// Publishes that the workspace was deleted.
    pub(crate) async fn deleted(&self) {
        let event = WorkspaceEvent::Deleted { workspace_id: WorkspaceId::from_uuid(id(2)) };
        let mut conn = self.database.pool.acquire().await.unwrap();
        berth_db::outbox::publish(&mut conn, "workspace", &id(2).to_string(), &event).await.unwrap();
    }

    pub(crate) async fn call(&self, method: &str, path: &str, token: &str) -> Answer {
        let path = format!("/api/v1/workspaces/demo{path}");
        call(&self.automations.router(), request(method, &path, token, &Value::Null)).await
    }

    pub(crate) async fn list(&self, kind: &str) -> AutomationList {
        let answer = self.call("GET", &format!("/{kind}"), "anna").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        serde_json::from_value(answer.json).unwrap()
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.call("POST", path, "anna").await
    }

    async fn find(&self, path: &str) -> Option<Automation> {
        let answer = self.call("GET", path, "anna").await;
        (answer.status == 200).then(|| serde_json::from_value(answer.json).unwrap())
    }

    /// Waits until a task or service is in a phase.
    pub(crate) async fn wait(&self, path: &str, phase: AutomationPhase) -> Automation {
        let mut last = None;
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let found = self.find(path).await;
                if let Some(found) = found.clone().filter(|found| found.phase == phase) {
                    return found;
                }
                last = found;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("{path} is not {phase:?} within 30 s: {last:#?}"))
    }

    /// Waits until the file is in a state.
    pub(crate) async fn file(&self, state: &str) -> AutomationList {
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let list = self.list("tasks").await;
                if list.file.state == state {
                    return list;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("the file is not {state} within 30 s"))
    }
}
