//! Requests to responses. One file a verb.

pub(crate) mod create;
mod delete;
mod delete_collection;
pub(crate) mod fixed;
mod get;
mod list;
mod patch;
pub(crate) mod pod_binding;
pub(crate) mod reviews;
mod scale;
mod update;
pub(crate) mod write;

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use serde_json::Value;

use crate::auth::{Action, User};
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::output::negotiate::{self, Form, Shape};
use crate::output::table::{self, Include};
use crate::registry::Resource;
use crate::request::{Query, Target};
use crate::server::Api;
use crate::store::object::{Address, Key, Object};
use crate::view;

/// A request for a resource, on its way through a handler.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) resource: Arc<Resource>,
    pub(crate) form: Form,
    pub(crate) now: DateTime<Utc>,
    pub(crate) warnings: Vec<String>,
}

/// Answers any request. `user` is trusted to be who it says.
pub(crate) async fn handle(api: Arc<Api>, user: User, request: Request<Body>) -> Response {
    match route(api, user, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn route(api: Arc<Api>, user: User, request: Request<Body>) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    // A refused request is read to its end too: if the connection is closed with unread input, the client does not see the answer.
    let body = match parts.method {
        Method::GET | Method::HEAD => body,
        _ => Body::from(body::read(body).await?),
    };
    let path = parts.uri.path();
    if let Some(answer) = fixed::answer(&api, &user, &parts) {
        return answer;
    }
    let mut target = Target::parse(path).ok_or_else(ApiError::path_not_found)?;
    if let Some(review) = reviews::Review::of(&target) {
        return reviews::answer(&api, &user, review, &parts, body).await;
    }
    let resource = api
        .registry
        .table()
        .get(&target.group, &target.version, &target.plural)
        .cloned()
        .ok_or_else(ApiError::path_not_found)?;
    let scoped = !target.namespace.is_empty();
    // A namespaced object has a namespace in its path, a cluster-scoped one has none.
    if scoped && !resource.namespaced || !scoped && resource.namespaced && !target.name.is_empty() {
        return Err(ApiError::path_not_found());
    }
    let query = Query::parse(parts.uri.query());
    let watching = target.watch || query.flag("watch") && target.name.is_empty();
    if target.watch && !target.name.is_empty() {
        // `/watch/.../name`: the old spelling of a field selector.
        target.watch = false;
    }
    let verb = verb(&parts.method, &target, watching).ok_or_else(ApiError::method_not_allowed)?;
    authorise(&user, verb, &resource, &target)?;
    let form = negotiate::negotiate(&parts.headers, query.get("pretty"))?;
    let warnings = resource.deprecation.iter().cloned().collect();
    let call = Call { now: api.clock.now(), target, query, headers: parts.headers, resource, form, warnings, api };
    if !call.target.subresource.is_empty() {
        return subresource(call, verb, body).await;
    }
    match verb {
        "get" => get::object(&call),
        "list" => list::list(&call).await,
        "watch" => list::watch(&call),
        "create" => create::create(call, body).await,
        "update" => update::update(call, body, "").await,
        "patch" => patch::patch(call, body, "").await,
        "delete" => delete::delete(call, body).await,
        "deletecollection" => delete_collection::delete(call, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn subresource(call: Call, verb: &str, body: Body) -> ApiResult<Response> {
    let name = call.target.subresource.clone();
    let builtin = call.resource.builtin;
    match name.as_str() {
        "status" if call.resource.status => match verb {
            "get" => get::object(&call),
            "update" => update::update(call, body, "status").await,
            "patch" => patch::patch(call, body, "status").await,
            _ => Err(ApiError::method_not_allowed()),
        },
        "scale" if call.resource.scale.is_some() => match verb {
            "get" => scale::get(&call),
            "update" => scale::update(call, body).await,
            "patch" => scale::patch(call, body).await,
            _ => Err(ApiError::method_not_allowed()),
        },
        "finalize" if builtin == Some(crate::registry::Builtin::Namespace) => match verb {
            "update" => update::update(call, body, "finalize").await,
            _ => Err(ApiError::method_not_allowed()),
        },
        "binding" if builtin == Some(crate::registry::Builtin::Pod) => match verb {
            "create" => pod_binding::bind(call, body).await,
            _ => Err(ApiError::method_not_allowed()),
        },
        "log" | "exec" | "attach" | "portforward" if builtin == Some(crate::registry::Builtin::Pod) => {
            Err(ApiError::not_served(&name))
        }
        _ if call.resource.is_custom() => Err(ApiError::not_found(call.resource.subject(), &call.target.name)),
        _ => Err(ApiError::path_not_found()),
    }
}

fn verb(method: &Method, target: &Target, watching: bool) -> Option<&'static str> {
    let item = !target.name.is_empty();
    Some(match *method {
        Method::GET | Method::HEAD if watching => "watch",
        Method::GET | Method::HEAD if item => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST if !item || !target.subresource.is_empty() => "create",
        Method::PUT if item => "update",
        Method::PATCH if item => "patch",
        Method::DELETE if item => "delete",
        Method::DELETE => "deletecollection",
        _ => return None,
    })
}

fn authorise(user: &User, verb: &str, resource: &Resource, target: &Target) -> ApiResult<()> {
    let action = Action {
        verb,
        group: &resource.group,
        resource: &resource.plural,
        subresource: &target.subresource,
        namespace: &target.namespace,
    };
    if user.may(&action) {
        return Ok(());
    }
    let plural = if target.subresource.is_empty() {
        resource.plural.to_string()
    } else {
        format!("{}/{}", resource.plural, target.subresource)
    };
    let place = if target.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", target.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {verb} resource \"{plural}\" in API group \"{}\" {place}",
        user.name, resource.group
    );
    Err(ApiError::forbidden(resource.subject(), &target.name, &why))
}

impl Call {
    pub(crate) fn key(&self) -> Key {
        Key::new(&self.target.namespace, &self.target.name)
    }

    pub(crate) fn address(&self, name: &str) -> Address {
        Address { collection: self.resource.collection.clone(), key: Key::new(&self.target.namespace, name) }
    }

    pub(crate) fn current(&self) -> ApiResult<Arc<Object>> {
        self.api
            .objects
            .get(&self.resource.collection, &self.key())
            .ok_or_else(|| ApiError::not_found(self.resource.subject(), &self.target.name))
    }

    /// Who is recorded as the writer: the query's `fieldManager`, else the client program's name.
    pub(crate) fn manager(&self) -> String {
        let named = self.query.text("fieldManager");
        if !named.is_empty() {
            return named.to_owned();
        }
        let agent = self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let program: String = agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        if program.is_empty() { "unknown".to_owned() } else { program }
    }

    pub(crate) fn include(&self) -> Include {
        match self.query.text("includeObject") {
            "None" => Include::Nothing,
            "Object" => Include::Object,
            _ => Include::Metadata,
        }
    }

    /// Answers with a stored object.
    pub(crate) fn object(&self, status: StatusCode, object: &Object) -> ApiResult<Response> {
        if self.form.shape == Shape::Plain
            && !self.form.yaml
            && !self.form.pretty
            && view::is_stored_form(&self.resource)
        {
            return Ok(self.bytes(status, object.bytes.clone(), "application/json"));
        }
        self.value(status, view::value(&self.resource, object))
    }

    /// Answers with an object of this version.
    pub(crate) fn value(&self, status: StatusCode, value: Value) -> ApiResult<Response> {
        if self.form.shape == Shape::PartialList {
            return Err(ApiError::reasonless(
                "you requested PartialObjectMetadataList, but the requested object is not a list",
            ));
        }
        let shaped = view::shaped(&self.resource, value, self.form, self.include(), self.now);
        Ok(self.plain(status, &shaped))
    }

    /// Answers with any JSON, in the encoding asked for.
    pub(crate) fn plain(&self, status: StatusCode, value: &Value) -> Response {
        let mut response = encode(status, value, self.form);
        self.warn(&mut response);
        response
    }

    pub(crate) fn bytes(&self, status: StatusCode, bytes: bytes::Bytes, media: &'static str) -> Response {
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        self.warn(&mut response);
        response
    }

    fn warn(&self, response: &mut Response) {
        for warning in &self.warnings {
            let text: String = warning.chars().filter(|letter| !letter.is_control()).collect();
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::try_from(format!("299 - \"{text}\"")) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
    }
}

/// JSON, indented JSON or YAML.
pub(crate) fn encode(status: StatusCode, value: &Value, form: Form) -> Response {
    let (bytes, media) = if form.yaml {
        let text = serde_yaml_ng::to_string(value).unwrap_or_default();
        (bytes::Bytes::from(text), "application/yaml")
    } else if form.pretty {
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        (text.into(), "application/json")
    } else {
        (table::to_bytes(value), "application/json")
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// The whole body and its media type.
pub(crate) async fn read(call: &Call, body: Body) -> ApiResult<(String, bytes::Bytes)> {
    let bytes = body::read(body).await?;
    Ok((body::media(&call.headers).to_owned(), bytes))
}

pub(crate) use delete::{FOREGROUND, ORPHAN, Propagation};

/// Deletes an object on behalf of the server: if another was faster, or the database is away, it is left to the next sweep.
pub(crate) async fn remove_quietly(call: &Call, object: Arc<Object>, propagation: Option<Propagation>) {
    let options = delete::Options { propagation, ..delete::Options::default() };
    if let Err(error) = delete::remove(call, object, &options).await
        && error.reason != "NotFound"
    {
        tracing::warn!(message = error.message, "cannot delete an object");
    }
}

/// Creates an object on behalf of the server, or updates the spec of the existing one.
pub(crate) async fn ensure(call: &Call, mut object: Value) -> ApiResult<()> {
    write::check_kind(&call.resource, &mut object)?;
    write::drop_unknown(&call.resource, &mut object)?;
    if call.current().is_ok() {
        let current = call.current()?.value();
        crate::meta::keep(&mut object, &current, "resourceVersion");
        // What the server has set stays: the given object is a manifest, not one that was read.
        for name in ["labels", "annotations", "finalizers"] {
            if let (Some(present), given) =
                (current["metadata"][name].clone().as_object(), &mut object["metadata"][name])
            {
                for (key, value) in present {
                    if given.get(key).is_none() {
                        given[key.as_str()] = value.clone();
                    }
                }
            } else if object["metadata"][name].is_null() {
                crate::meta::keep(&mut object, &current, name);
            }
        }
        return update::put(call, object, "", false).await.map(|_| ());
    }
    match create::store(call, object, false, None).await {
        Ok(_) => Ok(()),
        Err(error) if error.reason == "AlreadyExists" => Ok(()),
        Err(error) => Err(error),
    }
}
