use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use berth_api_types::internal::{Class, InstanceLifecycle};
use berth_api_types::public::Phase;
use berth_api_types::usage::UsagePage;
use berth_authz::{Authenticator, Credential, Membership, OrganizationRole, Presented, Principal};
use berth_billing::{Billing, Config};
use berth_clock::{ManualClock, SystemEntropy};
use berth_http::{InternalClient, Json, Problem};
use berth_testkit::{Answer, TestDatabase, call, request};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) const ANNA: &str = "019ab0e2-7c1e-7d30-8f6b-0000000000a1";
pub(crate) const BEN: &str = "019ab0e2-7c1e-7d30-8f6b-0000000000b1";
pub(crate) const TEAM: &str = "019ab0e2-7c1e-7d30-8f6b-0000000000f1";

/// `anna` owns the team, `ben` is a member, `root` administers, `eve` is nobody of them.
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate<'a>(
        &'a self,
        presented: &'a Presented,
    ) -> futures::future::BoxFuture<'a, Result<Arc<Principal>, Problem>> {
        Box::pin(async move {
            let token = presented.authorization.as_deref().and_then(|header| header.strip_prefix("Bearer "));
            let (id, role, admin) = match token {
                Some("anna") => (ANNA, Some(OrganizationRole::Owner), false),
                Some("ben") => (BEN, Some(OrganizationRole::Member), false),
                Some("root") => ("019ab0e2-7c1e-7d30-8f6b-0000000000c1", None, true),
                Some("eve") => ("019ab0e2-7c1e-7d30-8f6b-0000000000d1", None, false),
                _ => return Err(Problem::unauthorized("sign in")),
            };
            Ok(Arc::new(Principal {
                user_id: id.parse().unwrap(),
                name: String::new(),
                email: String::new(),
                admin,
                organizations: role
                    .map(|role| Membership { id: TEAM.parse().unwrap(), role, personal: false })
                    .into_iter()
                    .collect(),
                credential: Credential::Local,
            }))
        })
    }
}

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    format!("2026-11-23T{text}Z").parse().unwrap()
}

/// The n-th instance.
pub(crate) fn instance(number: u32) -> String {
    format!("019ab0e2-7c1e-7d30-8f6b-{number:012x}")
}

pub(crate) fn event(number: u32, phase: Phase, started: Option<&str>, stopped: Option<&str>) -> InstanceLifecycle {
    InstanceLifecycle {
        instance_id: instance(number).parse().unwrap(),
        workspace_id: instance(number + 1000).parse().unwrap(),
        workspace_name: format!("work-{number}"),
        owner_id: BEN.parse().unwrap(),
        organization_id: TEAM.parse().unwrap(),
        repository: "github.com/team/app".to_owned(),
        class: "small".to_owned(),
        phase,
        first_start: true,
        started_at: started.map(at),
        stopped_at: stopped.map(at),
        version: 1,
    }
}

pub(crate) struct Service {
    pub(crate) billing: Billing,
    pub(crate) database: TestDatabase,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) classes: Arc<Mutex<Vec<(String, String)>>>,
    shutdown: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn class(name: &str, credits_per_hour: &str) -> Class {
    Class {
        name: name.to_owned(),
        display_name: name.to_owned(),
        cpu_millis: 1000,
        memory_bytes: 1,
        disk_bytes: 1,
        pids: 1,
        io_bytes_per_second: None,
        no_new_privileges: false,
        credits_per_hour: credits_per_hour.to_owned(),
    }
}

/// A service at 12:00 with the classes small (1.5 credits per hour) and large (6).
pub(crate) async fn service() -> Service {
    let database = berth_testkit::database_with(&berth_db::MIGRATIONS).await;
    let clock = Arc::new(ManualClock::new(at("12:00:00")));
    let classes =
        Arc::new(Mutex::new(vec![("small".to_owned(), "1.5".to_owned()), ("large".to_owned(), "6".to_owned())]));
    let served = Arc::clone(&classes);
    let ws_manager = Router::new().route(
        "/internal/classes",
        get(move || {
            let classes: Vec<Class> = served.lock().unwrap().iter().map(|(name, price)| class(name, price)).collect();
            async move { Json(classes) }
        }),
    );
    let billing = Billing::new(
        &Config { price_refresh_seconds: 1 },
        database.pool.clone(),
        Arc::clone(&clock) as berth_clock::SharedClock,
        Arc::new(SystemEntropy),
        Arc::new(Tokens),
        InternalClient::in_process("ws-manager", ws_manager),
    )
    .unwrap();
    Service { billing, database, clock, classes, shutdown: CancellationToken::new() }
}

impl Service {
    /// Runs the jobs beside the test.
    pub(crate) fn run(&self) {
        let (billing, shutdown) = (self.billing.clone(), self.shutdown.clone());
        tokio::spawn(async move { billing.run_jobs(shutdown).await });
    }

    pub(crate) async fn publish(&self, event: &InstanceLifecycle) {
        let mut transaction = self.database.pool.begin().await.unwrap();
        berth_db::outbox::publish(&mut transaction, "instance", &event.instance_id.to_string(), event).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// Waits until every event was handled, and every record has a price.
    pub(crate) async fn settled(&self) {
        self.wait(
            "SELECT NOT EXISTS (SELECT 1 FROM outbox.events AS event LEFT JOIN outbox.offsets AS done
               ON done.consumer = 'billing' AND done.topic = event.topic
             WHERE event.topic = 'instance' AND (done.xid IS NULL OR (event.xid, event.id) > (done.xid, done.id)))
             AND NOT EXISTS (SELECT 1 FROM billing.usage_records WHERE credits_per_hour IS NULL)",
        )
        .await;
    }

    /// Waits until a query says yes.
    pub(crate) async fn wait(&self, query: &'static str) {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            loop {
                let (yes,): (bool,) = sqlx::query_as(query).fetch_one(&self.database.pool).await.unwrap();
                if yes {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "not within 30 s: {query}");
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        call(&self.billing.router(), request("GET", path, token, &Value::Null)).await
    }

    pub(crate) async fn usage(&self, query: &str, token: &str) -> UsagePage {
        let answer = self.get(&format!("/api/v1/usage{query}"), token).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        serde_json::from_value(answer.json).unwrap()
    }
}
