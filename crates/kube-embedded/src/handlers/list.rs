//! Lists and watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Call;
use crate::error::{ApiError, ApiResult, Cause};
use crate::output::negotiate::Shape;
use crate::output::table;
use crate::selector::{FieldSelector, LabelSelector, Selector};
use crate::store::object::{Key, Object};
use crate::view;
use crate::watch::{Options, Start, Watcher};

/// How long a list waits for a revision that is ahead.
const WAIT: Duration = Duration::from_secs(3);

/// A continue token: the revision of the first page, and the last key.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// -1: go on at the newest state.
    rv: i64,
    start: String,
}

impl Token {
    fn write(revision: i64, after: &Key) -> String {
        let token = Self {
            v: "meta.k8s.io/v1".to_owned(),
            rv: revision,
            start: format!("{}/{}\0", after.namespace, after.name),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn read(text: &str) -> ApiResult<(i64, Key)> {
        let bad = |why: &str| ApiError::bad_request(format!("invalid continue token: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad("continue key is not valid"))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| bad("continue key is not valid"))?;
        let (namespace, name) = token.start.split_once('/').ok_or_else(|| bad("continue key is not valid"))?;
        if token.v != "meta.k8s.io/v1" || token.rv == 0 || token.rv < -1 {
            return Err(bad("server does not recognize this encoded version"));
        }
        Ok((token.rv, Key::new(namespace, name.trim_end_matches('\0'))))
    }
}

pub(super) fn selector(call: &Call) -> ApiResult<Selector> {
    Ok(Selector {
        labels: LabelSelector::parse(call.query.text("labelSelector"))?,
        fields: FieldSelector::parse(call.query.text("fieldSelector"), &call.resource.fields)?,
    })
}

fn namespace(call: &Call) -> Option<&str> {
    (call.resource.namespaced && !call.target.namespace.is_empty()).then_some(call.target.namespace.as_str())
}

fn match_problem(field: &'static str, detail: &str) -> ApiError {
    ApiError::invalid_options("ListOptions", &[Cause::forbidden(field, detail)])
}

/// Which state a list reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revision {
    Newest,
    NotOlderThan(u64),
    Exact(u64),
}

fn revision(call: &Call, limit: usize) -> ApiResult<Revision> {
    let text = call.query.text("resourceVersion");
    let rule = call.query.text("resourceVersionMatch");
    if call.query.get("sendInitialEvents").is_some_and(|value| !value.is_empty()) {
        return Err(match_problem("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if !rule.is_empty() && text.is_empty() {
        return Err(match_problem(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    let number = match text {
        "" => None,
        text => Some(text.parse::<u64>().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })?),
    };
    match (rule, number) {
        ("" | "NotOlderThan", None | Some(0)) => Ok(Revision::Newest),
        ("Exact", Some(0)) => Err(match_problem(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        ("Exact", Some(number)) => Ok(Revision::Exact(number)),
        // The old rule: a limit with a number means exactly that state.
        ("", Some(number)) if limit > 0 => Ok(Revision::Exact(number)),
        ("" | "NotOlderThan", Some(number)) => Ok(Revision::NotOlderThan(number)),
        (other, _) => Err(ApiError::invalid_options(
            "ListOptions",
            &[Cause::new(
                "FieldValueNotSupported",
                "resourceVersionMatch",
                format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""),
            )],
        )),
    }
}

async fn wait_for(call: &Call, revision: u64) -> ApiResult<()> {
    let mut reached = call.api.objects.read().subscribe();
    if tokio::time::timeout(WAIT, reached.wait_for(|current| *current >= revision)).await.is_ok_and(|done| done.is_ok())
    {
        return Ok(());
    }
    let current = call.api.objects.read().revision();
    Err(ApiError::too_large_revision(revision, current))
}

/// One page.
pub(super) struct Page {
    pub(super) revision: u64,
    pub(super) objects: Vec<Arc<Object>>,
    next: Option<String>,
    remaining: Option<usize>,
}

pub(super) async fn page(call: &Call) -> ApiResult<Page> {
    let selector = selector(call)?;
    let limit = usize::try_from(call.query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let token = call.query.text("continue");
    if !token.is_empty() {
        if !matches!(call.query.text("resourceVersion"), "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let (revision, after) = Token::read(token)?;
        let namespace = namespace(call);
        let state = call.api.objects.read();
        let Some(collection) = state.collection(&call.resource.collection) else {
            return Ok(Page { revision: state.revision(), objects: Vec::new(), next: None, remaining: None });
        };
        return match u64::try_from(revision) {
            Err(_) => Ok(cut(collection.range(namespace, Some(&after)), state.revision(), -1, limit, &selector)),
            Ok(revision) => match collection.at(revision, namespace, Some(&after)) {
                Some(objects) => Ok(cut(objects.values(), revision, signed(revision), limit, &selector)),
                None => {
                    let mut error = ApiError::expired(
                        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
                    );
                    error.continue_token = Some(Token::write(-1, &after));
                    Err(error)
                }
            },
        };
    }
    let wanted = revision(call, limit)?;
    if let Revision::NotOlderThan(revision) | Revision::Exact(revision) = wanted {
        wait_for(call, revision).await?;
    }
    // "Any" is served from the cache, which in the real server does not page.
    let limit = if call.query.text("resourceVersion") == "0" { 0 } else { limit };
    let namespace = namespace(call);
    let state = call.api.objects.read();
    let current = state.revision();
    let Some(collection) = state.collection(&call.resource.collection) else {
        return Ok(Page { revision: current, objects: Vec::new(), next: None, remaining: None });
    };
    match wanted {
        Revision::Exact(revision) if revision != current => {
            let objects: BTreeMap<Key, Arc<Object>> = collection
                .at(revision, namespace, None)
                .ok_or_else(|| ApiError::expired("The provided resource version is too old."))
                .map_err(|mut error| {
                    error.message = "The resourceVersion for the provided list is too old.".to_owned();
                    error
                })?;
            Ok(cut(objects.values(), revision, signed(revision), limit, &selector))
        }
        _ => {
            if let (Some(name), Some(namespace)) =
                (selector.fields.name(), namespace.or((!call.resource.namespaced).then_some("")))
            {
                let found = collection.objects.get(&Key::new(namespace, name));
                return Ok(cut(found.into_iter(), current, signed(current), limit, &selector));
            }
            Ok(cut(collection.range(namespace, None), current, signed(current), limit, &selector))
        }
    }
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Takes one page of what matches; `token_revision` goes into the token of the next.
fn cut<'a>(
    objects: impl Iterator<Item = &'a Arc<Object>>,
    revision: u64,
    token_revision: i64,
    limit: usize,
    selector: &Selector,
) -> Page {
    let mut matching = objects.filter(|object| selector.matches(object));
    if limit == 0 {
        return Page { revision, objects: matching.cloned().collect(), next: None, remaining: None };
    }
    let objects: Vec<Arc<Object>> = matching.by_ref().take(limit).cloned().collect();
    let more = matching.next().is_some();
    let remaining = (more && selector.is_empty()).then(|| matching.count() + 1);
    let next = objects.last().filter(|_| more).map(|last| Token::write(token_revision, &last.key));
    Page { revision, objects, next, remaining }
}

fn metadata(page: &Page, custom: bool) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    // Lists of custom resources have the member even when it is empty.
    match &page.next {
        Some(token) => metadata["continue"] = json!(token),
        None if custom => metadata["continue"] = json!(""),
        None => {}
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

pub(super) async fn list(call: &Call) -> ApiResult<Response> {
    if call.form.shape == Shape::Partial {
        return Err(ApiError::not_acceptable(&["application/json", "application/yaml"]));
    }
    let page = page(call).await?;
    respond(call, &page)
}

pub(super) fn respond(call: &Call, page: &Page) -> ApiResult<Response> {
    let resource = &call.resource;
    match call.form.shape {
        Shape::Plain if !call.form.yaml && !call.form.pretty => {
            let size: usize = page.objects.iter().map(|object| object.bytes.len() + 1).sum();
            let mut bytes = Vec::with_capacity(size + 256);
            let kind = json!(resource.list_kind);
            let version = json!(resource.api_version());
            bytes.extend_from_slice(
                format!(
                    "{{\"kind\":{kind},\"apiVersion\":{version},\"metadata\":{},\"items\":[",
                    metadata(page, resource.is_custom())
                )
                .as_bytes(),
            );
            for (index, object) in page.objects.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                view::write_item(&mut bytes, resource, object);
            }
            bytes.extend_from_slice(b"]}\n");
            Ok(call.bytes(StatusCode::OK, bytes.into(), "application/json"))
        }
        shape => {
            let objects: Vec<Value> = page.objects.iter().map(|object| view::value(resource, object)).collect();
            let value = match shape {
                Shape::Table => table::table(resource, &objects, metadata(page, false), call.include(), true, call.now),
                Shape::PartialList => json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata(page, false),
                    "items": objects.iter().map(table::partial).collect::<Vec<_>>(),
                }),
                Shape::Plain | Shape::Partial => json!({
                    "kind": resource.list_kind,
                    "apiVersion": resource.api_version(),
                    "metadata": metadata(page, resource.is_custom()),
                    "items": objects,
                }),
            };
            Ok(call.plain(StatusCode::OK, &value))
        }
    }
}

/// The length of a watch without `timeoutSeconds`: 30 to 60 minutes, spread so that clients do not return together.
fn default_timeout(call: &Call) -> Duration {
    let mut random = [0; 2];
    call.api.entropy.fill(&mut random);
    Duration::from_secs(1800 + u64::from(u16::from_ne_bytes(random)) % 1800)
}

pub(super) fn watch(call: &Call) -> ApiResult<Response> {
    let mut selector = selector(call)?;
    let query = &call.query;
    if !call.target.name.is_empty() {
        let name =
            format!("metadata.name={}", call.target.name.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\="));
        selector.fields = FieldSelector::parse(&name, &[])?;
    }
    let rule = query.text("resourceVersionMatch");
    let initial =
        query.get("sendInitialEvents").filter(|value| !value.is_empty()).map(|_| query.flag("sendInitialEvents"));
    match (initial, rule) {
        (None, "") | (Some(_), "NotOlderThan") => {}
        (None, _) => {
            return Err(match_problem(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        (Some(_), _) => {
            return Err(match_problem(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
    }
    let text = query.text("resourceVersion");
    let revision = match text {
        "" => 0,
        text => text.parse::<u64>().map_err(|_| {
            ApiError::reasonless(format!(
                "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })?,
    };
    let start = match (initial, revision) {
        (Some(true), _) => Start::Initial { end_mark: true },
        (Some(false), 0) => Start::After(call.api.objects.read().revision()),
        (None, 0) => Start::Initial { end_mark: false },
        (_, revision) => Start::After(revision),
    };
    let timeout = match query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => default_timeout(call),
    };
    let body = if initial == Some(true) && revision > call.api.objects.read().revision() {
        let error = ApiError::too_large_revision(revision, call.api.objects.read().revision());
        let line = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", error.status());
        Body::from(line)
    } else {
        let watcher = Watcher::new(
            call.api.clone(),
            Options {
                resource: call.resource.clone(),
                namespace: namespace(call).map(str::to_owned),
                selector,
                start,
                bookmarks: query.flag("allowWatchBookmarks"),
                timeout,
                form: call.form,
                include: call.include(),
            },
        );
        let lines = futures::stream::unfold(watcher, |mut watcher| async move {
            let line = watcher.next().await?;
            Some((Ok::<_, std::convert::Infallible>(line), watcher))
        });
        Body::from_stream(lines)
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
