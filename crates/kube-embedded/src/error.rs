//! The errors a client sees: `Status` objects with the reasons, codes and causes of kube-apiserver.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

/// One entry of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl Cause {
    pub(crate) fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: field.into() }
    }

    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self::new("FieldValueRequired", field, message)
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new("FieldValueInvalid", field, format!("Invalid value: {}: {detail}", value))
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {detail}"))
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new("FieldValueDuplicate", field, format!("Duplicate value: {}", value))
    }
}

/// What goes wrong in a request, ready to be written as a `Status`.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: StatusCode,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
    /// `metadata.continue` of an expired list.
    pub(crate) continue_token: Option<String>,
    retry_after: Option<u32>,
    /// A path that names nothing is answered as plain text, as the real server does.
    plain: bool,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// Names a resource in error details: `workspaces.berth.dev`, or `pods` in the core group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) group: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) kind: &'a str,
}

impl Subject<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    fn details(&self, name: &str, kind: &str) -> Value {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), json!(name));
        }
        if !self.group.is_empty() {
            details.insert("group".into(), json!(self.group));
        }
        details.insert("kind".into(), json!(kind));
        Value::Object(details)
    }
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            continue_token: None,
            retry_after: None,
            plain: false,
        }
    }

    fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn path_not_found() -> Self {
        Self { plain: true, ..Self::new(StatusCode::NOT_FOUND, "NotFound", "404 page not found") }
    }

    /// What a kubelet does, of which there is none here.
    pub(crate) fn not_served(subresource: &str) -> Self {
        let instead = match subresource {
            "log" => "berth logs WORKSPACE",
            "portforward" => "berth port-forward WORKSPACE PORT",
            _ => "berth exec WORKSPACE -- COMMAND",
        };
        let message = format!("Berth does not serve {subresource} of pods to kubectl: use `{instead}`");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(crate) fn not_found(subject: Subject<'_>, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} \"{name}\" not found", subject.qualified()))
            .with_details(subject.details(name, subject.plural))
    }

    pub(crate) fn already_exists(subject: Subject<'_>, name: &str, deleting: bool) -> Self {
        let prefix = if deleting { "object is being deleted: " } else { "" };
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{prefix}{} \"{name}\" already exists", subject.qualified()),
        )
        .with_details(subject.details(name, subject.plural))
    }

    pub(crate) fn conflict(subject: Subject<'_>, name: &str) -> Self {
        Self::conflict_because(
            subject,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn conflict_because(subject: Subject<'_>, name: &str, why: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", subject.qualified()),
        )
        .with_details(subject.details(name, subject.plural))
    }

    pub(crate) fn precondition(subject: Subject<'_>, name: &str, why: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", subject.qualified_kind()),
        )
        .with_details(subject.details(name, subject.kind))
    }

    pub(crate) fn apply_conflict(causes: &[Cause]) -> Self {
        let message = match causes {
            [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
            many => {
                let mut text = format!("Apply failed with {} conflicts: ", many.len());
                let mut last = "";
                for cause in many {
                    if cause.message != last {
                        if !last.is_empty() {
                            text.push('\n');
                        }
                        text.push_str(&cause.message.replacen("conflict", "conflicts", 1));
                        text.push(':');
                        last = &cause.message;
                    }
                    text.push_str("\n- ");
                    text.push_str(&cause.field);
                }
                text
            }
        };
        Self::new(StatusCode::CONFLICT, "Conflict", message).with_details(json!({ "causes": cause_list(causes) }))
    }

    pub(crate) fn forbidden(subject: Subject<'_>, name: &str, why: &str) -> Self {
        let what = if name.is_empty() { subject.qualified() } else { format!("{} \"{name}\"", subject.qualified()) };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", format!("{what} is forbidden: {why}"))
            .with_details(subject.details(name, subject.plural))
    }

    pub(crate) fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""),
        )
        .with_details(json!({}))
    }

    pub(crate) fn namespace_terminating(subject: Subject<'_>, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = Self::forbidden(subject, name, &why);
        if let Some(details) = error.details.as_mut().and_then(Value::as_object_mut) {
            let cause = Cause::new(
                "NamespaceTerminating",
                "metadata.namespace",
                format!("namespace {namespace} is being terminated"),
            );
            details.insert("causes".into(), cause_list(&[cause]));
        }
        error
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_details(json!({}))
    }

    pub(crate) fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
        .with_details(json!({}))
    }

    pub(crate) fn unsupported_media(accepted: &[&str]) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 422 on an object: `details.kind` is the Kind, not the plural.
    pub(crate) fn invalid(subject: Subject<'_>, name: &str, causes: &[Cause]) -> Self {
        let mut details = subject.details(name, subject.kind);
        if let Some(map) = details.as_object_mut() {
            map.insert("causes".into(), cause_list(causes));
        }
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{} \"{name}\" is invalid: {}", subject.qualified_kind(), join_causes(causes)),
        )
        .with_details(details)
    }

    /// 422 on the query: `kind` is `ListOptions`, `PatchOptions`, ...
    pub(crate) fn invalid_options(kind: &'static str, causes: &[Cause]) -> Self {
        Self::invalid(Subject { group: "meta.k8s.io", plural: kind, kind }, "", causes)
    }

    /// 422 of a patch that cannot be carried out; the real server says no more than this.
    pub(crate) fn unprocessable_patch() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
        .with_details(json!({}))
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn too_large_revision(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {message}"));
        error.retry_after = Some(1);
        error.with_details(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        }))
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
        .with_details(json!({}))
    }

    /// 500 without a reason: what kube-apiserver answers where it forgot to choose one.
    pub(crate) fn reasonless(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        error.retry_after = Some(1);
        error.with_details(json!({ "retryAfterSeconds": 1 }))
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), json!(token));
        }
        let mut status = Map::new();
        status.insert("kind".into(), json!("Status"));
        status.insert("apiVersion".into(), json!("v1"));
        status.insert("metadata".into(), Value::Object(metadata));
        status.insert("status".into(), json!("Failure"));
        status.insert("message".into(), json!(self.message));
        if !self.reason.is_empty() {
            status.insert("reason".into(), json!(self.reason));
        }
        if let Some(details) = &self.details {
            status.insert("details".into(), details.clone());
        }
        status.insert("code".into(), json!(self.code.as_u16()));
        Value::Object(status)
    }
}

fn cause_list(causes: &[Cause]) -> Value {
    Value::Array(causes.iter().map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field })).collect())
}

fn join_causes(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(causes.len());
    for cause in causes {
        let text = format!("{}: {}", cause.field, cause.message);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = if self.plain {
            let mut response = Response::new(axum::body::Body::from("404 page not found\n"));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        } else {
            let mut body = self.status().to_string().into_bytes();
            body.push(b'\n');
            let mut response = Response::new(axum::body::Body::from(Bytes::from(body)));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        };
        *response.status_mut() = self.code;
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACES: Subject<'static> = Subject { group: "berth.dev", plural: "workspaces", kind: "Workspace" };

    #[test]
    fn not_found_names_the_plural_and_invalid_the_kind() {
        let missing = ApiError::not_found(WORKSPACES, "none").status();
        assert_eq!(missing["message"], "workspaces.berth.dev \"none\" not found");
        assert_eq!(missing["details"]["kind"], "workspaces");
        let causes = [Cause::required("spec.class", ""), Cause::required("spec.image", "")];
        let invalid = ApiError::invalid(WORKSPACES, "c", &causes).status();
        assert_eq!(
            invalid["message"],
            "Workspace.berth.dev \"c\" is invalid: [spec.class: Required value, spec.image: Required value]"
        );
        assert_eq!(invalid["details"]["kind"], "Workspace");
        assert_eq!(invalid["code"], 422);
    }
}
