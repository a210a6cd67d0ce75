//! `/metrics` in OpenMetrics text: requests, instances by phase, the process. For administrators, or root at the unix socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use berth_api_types::internal::InstanceStatus;
use berth_authz::{Authenticated, Authenticator};
use berth_http::{InternalClient, Problem};
use berth_telemetry::Metrics;
use berth_ws_manager::WsManager;
use http::header;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// The labels of requests; the route is the pattern, never the path with its ids.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: String,
}

/// The server's metrics.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics {
    metrics: Metrics,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
    instances: Family<PhaseLabels, Gauge>,
    resident_bytes: Gauge,
    open_files: Gauge,
    ws_manager: InternalClient,
}

impl ServerMetrics {
    /// The server's own and ws-manager's.
    pub(crate) fn new(ws_manager: InternalClient, manager: &WsManager) -> Self {
        let this = Self {
            metrics: Metrics::default(),
            requests: Family::default(),
            seconds: Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0]),
            instances: Family::default(),
            resident_bytes: Gauge::default(),
            open_files: Gauge::default(),
            ws_manager,
        };
        let build: Family<BuildLabels, Gauge> = Family::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION").to_owned() }).set(1);
        this.metrics.register(|registry| {
            manager.register_metrics(registry);
            registry.register("build_info", "Version of the server", build);
            registry.register("http_requests", "Requests of users, by route and status", this.requests.clone());
            registry.register("http_request_seconds", "Time to the answer's head", this.seconds.clone());
            registry.register("instances", "Instances in the cluster, by phase", this.instances.clone());
            registry.register(
                "process_resident_memory_bytes",
                "Resident memory of the server",
                this.resident_bytes.clone(),
            );
            registry.register("process_open_fds", "Open file descriptors of the server", this.open_files.clone());
        });
        this
    }

    /// Counts the requests of `router`, and adds `/metrics`.
    pub(crate) fn watch(self, router: Router, authenticator: Arc<dyn Authenticator>) -> Router {
        let scrape =
            Router::new().route("/metrics", get(Self::scrape)).layer(Extension(authenticator)).with_state(self.clone());
        router.layer(axum::middleware::from_fn_with_state(self, Self::count)).merge(scrape)
    }

    async fn count(State(this): State<Self>, request: Request, next: Next) -> Response {
        let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
        let method = request.method().as_str().to_owned();
        let begin = Instant::now();
        let response = next.run(request).await;
        this.seconds.observe(begin.elapsed().as_secs_f64());
        let status = response.status().as_u16();
        this.requests.get_or_create(&RequestLabels { method, route, status }).inc();
        response
    }

    async fn scrape(State(this): State<Self>, Authenticated(principal): Authenticated) -> Result<Response, Problem> {
        if !principal.admin {
            return Err(Problem::forbidden("metrics are for administrators"));
        }
        this.refresh().await;
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(([(header::CONTENT_TYPE, kind)], this.metrics.render()).into_response())
    }

    async fn refresh(&self) {
        match self.ws_manager.get::<Vec<InstanceStatus>>("/internal/instances").await {
            Ok(instances) => {
                let mut counts: BTreeMap<String, i64> = BTreeMap::new();
                for instance in instances {
                    *counts.entry(format!("{:?}", instance.phase)).or_default() += 1;
                }
                self.instances.clear();
                for (phase, count) in counts {
                    self.instances.get_or_create(&PhaseLabels { phase }).set(count);
                }
            }
            Err(error) => tracing::warn!(%error, "the instances could not be counted"),
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<i64>().ok())
            .unwrap_or(0);
        self.resident_bytes.set(resident.saturating_mul(1024));
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.open_files.set(i64::try_from(files).unwrap_or(i64::MAX));
    }
}
