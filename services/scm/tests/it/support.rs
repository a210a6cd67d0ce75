use std::sync::Arc;

use axum::Router;
use berth_api_types::internal::ResolveContextReply;
use berth_authz::{Authenticator, Credential, Presented, Principal};
use berth_clock::{SystemClock, SystemEntropy};
use berth_http::{InternalClient, Problem};
use berth_ids::UserId;
use berth_scm::{Config, Scm};
use berth_testkit::{Answer, TestDatabase, call, request};
use serde_json::{Value, json};

/// Two users, by the token `anna` or `ben`.
pub(crate) struct Tokens;

pub(crate) fn user(name: &str) -> UserId {
    let digit = if name == "anna" { '1' } else { '2' };
    format!("019ab0e2-7c1e-7d30-8f6b-00000000000{digit}").parse().unwrap()
}

impl Authenticator for Tokens {
    fn authenticate<'a>(
        &'a self,
        presented: &'a Presented,
    ) -> futures::future::BoxFuture<'a, Result<Arc<Principal>, Problem>> {
        Box::pin(async move {
            let token = presented.authorization.as_deref().and_then(|header| header.strip_prefix("Bearer "));
            match token {
                Some(name @ ("anna" | "ben")) => Ok(Arc::new(Principal {
                    user_id: user(name),
                    name: name.to_owned(),
                    email: format!("{name}@example.com"),
                    admin: false,
                    organizations: vec![],
                    credential: Credential::Local,
                })),
                _ => Err(Problem::unauthorized("sign in")),
            }
        })
    }
}

pub(crate) struct Service {
    pub(crate) scm: Scm,
    pub(crate) database: TestDatabase,
    pub(crate) config: Config,
    _folder: tempfile::TempDir,
}

/// A service that may call these loopback addresses.
pub(crate) async fn service(allow: &[String], change: impl FnOnce(&mut Config)) -> Service {
    berth_http::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let database = berth_testkit::database_with(&berth_db::MIGRATIONS).await;
    let mut config = Config {
        allow_private_hosts: allow.to_vec(),
        master_key_file: folder.path().join("scm.key"),
        ..Config::default()
    };
    change(&mut config);
    let scm = build(&config, &database);
    Service { scm, database, config, _folder: folder }
}

pub(crate) fn build(config: &Config, database: &TestDatabase) -> Scm {
    Scm::new(config, database.pool.clone(), SystemClock::shared(), Arc::new(SystemEntropy), Arc::new(Tokens)).unwrap()
}

impl Service {
    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        call(&self.scm.router(), request(method, path, token, &body)).await
    }

    pub(crate) async fn resolve(&self, url: &str) -> Answer {
        let body = json!({ "url": url, "user_id": user("anna") });
        call(&self.scm.internal_router(), request("POST", "/internal/contexts/resolve", "", &body)).await
    }

    pub(crate) async fn resolved(&self, url: &str) -> ResolveContextReply {
        let answer = self.resolve(url).await;
        assert_eq!(answer.status, 200, "{url}: {}", answer.text);
        serde_json::from_value(answer.json).unwrap()
    }

    /// Code and text of the problem.
    pub(crate) async fn refused(&self, url: &str) -> (String, String) {
        let answer = self.resolve(url).await;
        assert!(answer.status.is_client_error(), "{url}: {} {}", answer.status, answer.text);
        (answer.json["code"].as_str().unwrap().to_owned(), answer.json["detail"].as_str().unwrap().to_owned())
    }

    pub(crate) fn internal(&self) -> InternalClient {
        InternalClient::in_process("scm", self.scm.internal_router())
    }
}

/// Serves a router on loopback; its `host:port`.
pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(berth_http::serve(
        berth_http::Listener::Tcp(listener),
        router,
        berth_http::ServeOptions::default(),
        tokio_util::sync::CancellationToken::new(),
    ));
    address
}
