//! Starting, serving and stopping.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse as _, Response};
use berth_clock::{Entropy, SharedClock, SystemClock, SystemEntropy};
use http::header;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::auth::{Authenticator, Tokens, User};
use crate::error::ApiError;
use crate::handlers;
use crate::react::{self, DEFINITIONS, NAMESPACES};
use crate::registry::{Registry, custom};
use crate::schema;
use crate::store::backend::{Backend, Row};
use crate::store::object::{CollectionName, Draft, Key};
use crate::store::state::State;
use crate::store::{HistoryLimit, Objects, Store, StoreError};

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) objects: Objects,
    pub(crate) registry: Registry,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A CRD given to the builder cannot be written as JSON.
    #[error("the CRD {name} cannot be written as JSON")]
    Encode {
        /// The CRD's name.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A CRD or namespace given to the builder is refused.
    #[error("{what} is refused: {message}")]
    Refused {
        /// Which object.
        what: String,
        /// The server's own answer.
        message: String,
    },
}

/// Gathers what a server needs.
#[derive(Debug)]
pub struct Builder {
    store: Store,
    definitions: Vec<CustomResourceDefinition>,
    namespaces: Vec<String>,
    authenticator: Arc<dyn Authenticator>,
    clock: SharedClock,
    entropy: Arc<dyn Entropy>,
    history: HistoryLimit,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A server in memory, with the namespaces `default` and `kube-system`, and no tokens.
    #[must_use]
    pub fn new() -> Self {
        Self {
            store: Store::Memory,
            definitions: Vec::new(),
            namespaces: ["default", "kube-system"].map(str::to_owned).to_vec(),
            authenticator: Arc::new(Tokens::new()),
            clock: SystemClock::shared(),
            entropy: Arc::new(SystemEntropy),
            history: HistoryLimit::default(),
        }
    }

    /// Where objects are kept.
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// A CRD to install at the start, or to bring up to date.
    #[must_use]
    pub fn crd(mut self, definition: CustomResourceDefinition) -> Self {
        self.definitions.push(definition);
        self
    }

    /// A namespace to make at the start.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespaces.push(name.into());
        self
    }

    /// Authenticates the bearer tokens of [`ApiServer::authenticated_router`].
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Arc::new(authenticator);
        self
    }

    /// The clock that timestamps come from.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Where uids and generated names come from.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// How many events a kind's history keeps, for resuming watches and consistent pages. The default is 8,192, and
    /// 16 MiB whatever their number.
    #[must_use]
    pub fn history_events(mut self, events: usize) -> Self {
        self.history.events = events;
        self
    }

    /// Opens the store and starts the server.
    pub async fn start(self) -> Result<ApiServer, StartError> {
        ApiServer::start(self).await
    }
}

/// A running server.
#[derive(Debug)]
pub struct ApiServer {
    api: Arc<Api>,
    authenticator: Arc<dyn Authenticator>,
    stop: watch::Sender<bool>,
    writer: JoinHandle<()>,
    reactions: JoinHandle<()>,
}

impl ApiServer {
    /// Opens the store, loads what is in it, installs the CRDs and namespaces of the builder.
    pub async fn start(builder: Builder) -> Result<Self, StartError> {
        let (backend, revision, rows) = Backend::open(builder.store).await?;
        let registry = Registry::new();
        // Revision 0 and 1 mean "any" to clients.
        let mut state = State::new(revision.max(1), builder.history);
        load(&registry, &mut state, rows)?;

        let (stop, stopping) = watch::channel(false);
        let (commits, committed) = mpsc::unbounded_channel();
        let (objects, writer) = Objects::start(state, backend, commits, stopping.clone());
        let api = Arc::new(Api {
            objects,
            registry,
            clock: builder.clock,
            entropy: builder.entropy,
            stopping: stopping.clone(),
        });
        let reactions = tokio::spawn(react::run(api.clone(), committed, stopping));
        let server = Self { api, authenticator: builder.authenticator, stop, writer, reactions };
        for name in &builder.namespaces {
            server.install(NAMESPACES, name, json!({ "metadata": { "name": name } })).await?;
        }
        for definition in builder.definitions {
            server.install_definition(definition).await?;
        }
        Ok(server)
    }

    async fn install(&self, collection: &str, name: &str, object: Value) -> Result<(), StartError> {
        let refused = |message: String| StartError::Refused { what: format!("{collection} {name:?}"), message };
        let table = self.api.registry.table();
        let resource = table.storage(collection).ok_or_else(|| refused("the resource is not served".to_owned()))?;
        let call = react::internal(&self.api, resource, "", name);
        handlers::ensure(&call, object).await.map_err(|error| refused(error.message))
    }

    /// Installs a CRD and waits until it is served.
    async fn install_definition(&self, definition: CustomResourceDefinition) -> Result<(), StartError> {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let object =
            serde_json::to_value(&definition).map_err(|source| StartError::Encode { name: name.clone(), source })?;
        let mut changes = {
            self.api.objects.open_collection(&DEFINITIONS.into());
            let state = self.api.objects.read();
            state.subscribe()
        };
        self.install(DEFINITIONS, &name, object).await?;
        loop {
            let crd = self.api.objects.get(DEFINITIONS, &Key::new("", &name)).map(|object| object.value());
            let conditions = crd.as_ref().map(|crd| crd["status"]["conditions"].clone()).unwrap_or_default();
            let find = |kind: &str| {
                conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == kind).cloned()
            };
            match (find("NamesAccepted"), find("Established")) {
                (Some(accepted), _) if accepted["status"] == "False" => {
                    let message = accepted["message"].as_str().unwrap_or_default().to_owned();
                    return Err(StartError::Refused { what: format!("CRD {name:?}"), message });
                }
                (Some(_), Some(established)) if established["status"] == "True" => return Ok(()),
                _ => {}
            }
            if changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The API for callers in this process, who may do everything: `kube::Client::new(server.router(), "default")`.
    /// Not to be put on a socket.
    pub fn router(&self) -> Router {
        Router::new().fallback(trusted).with_state(self.api.clone())
    }

    /// The API for callers outside the process, who authenticate with bearer tokens.
    pub fn authenticated_router(&self) -> Router {
        let shared = Guarded { api: self.api.clone(), authenticator: self.authenticator.clone() };
        Router::new().fallback(guarded).with_state(shared)
    }

    /// The newest resource version.
    pub fn resource_version(&self) -> u64 {
        self.api.objects.read().revision()
    }

    /// Ends the watches, lets the writer finish what is queued, and closes the store.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        for task in [self.writer, self.reactions] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the Kubernetes API server did not end well");
            }
        }
    }
}

/// Puts the stored rows into memory, CRDs first: the others are read under them.
fn load(registry: &Registry, state: &mut State, rows: Vec<Row>) -> Result<(), StoreError> {
    let (definitions, others): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.resource == DEFINITIONS);
    for row in definitions.into_iter().chain(others) {
        let corrupt = || StoreError::Corrupt {
            resource: row.resource.clone(),
            namespace: row.namespace.clone(),
            name: row.name.clone(),
        };
        let mut value: Value = serde_json::from_slice(&row.body).map_err(|_| corrupt())?;
        if !value.is_object() {
            return Err(corrupt());
        }
        if row.resource == DEFINITIONS
            && value["status"]["acceptedNames"]["plural"].as_str().is_some_and(|plural| !plural.is_empty())
        {
            match custom::resources(&value) {
                Ok(resources) => registry.replace(&custom::collection(&value), resources),
                Err(causes) => {
                    let problem = causes.first().map(|cause| format!("{}: {}", cause.field, cause.message));
                    tracing::error!(crd = row.name, problem, "a stored CRD cannot be served");
                }
            }
        }
        let collection: CollectionName = row.resource.as_str().into();
        let table = registry.table();
        let resource = table.storage(&collection);
        if let Some(resource) = resource.filter(|resource| resource.is_custom()) {
            schema::prune(&mut value, &resource.schema, "", &mut Vec::new());
            schema::apply_defaults(&mut value, &resource.schema);
        }
        let fields = resource.map(|resource| resource.fields.clone()).unwrap_or_default();
        let key = Key::new(&row.namespace, &row.name);
        state.load(&collection, Draft::new(&value, &fields).commit(key, row.revision));
    }
    Ok(())
}

async fn trusted(Shared(api): Shared<Arc<Api>>, request: Request) -> Response {
    handlers::handle(api, User::admin("system:admin"), request).await
}

#[derive(Debug, Clone)]
struct Guarded {
    api: Arc<Api>,
    authenticator: Arc<dyn Authenticator>,
}

async fn guarded(Shared(shared): Shared<Guarded>, request: Request) -> Response {
    let user = match request.headers().get(header::AUTHORIZATION) {
        None => User::anonymous(),
        Some(value) => {
            let token = value
                .to_str()
                .ok()
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim());
            match token.and_then(|token| shared.authenticator.authenticate(token)) {
                Some(user) => user,
                None => return ApiError::unauthorized().into_response(),
            }
        }
    };
    handlers::handle(shared.api, user, request).await
}
