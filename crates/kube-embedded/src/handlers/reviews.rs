//! Questions about the caller: may I, what may I, who am I. Nothing of them is stored.

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::encode;
use crate::auth::{Action, User};
use crate::body;
use crate::error::{ApiError, ApiResult, Cause, Subject};
use crate::output::negotiate;
use crate::request::Target;
use crate::server::Api;

/// The reviews that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Review {
    Access,
    Rules,
    Who,
}

/// Group, plural, kind of each.
pub(crate) const REVIEWS: [(&str, &str, &str, Review); 3] = [
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", Review::Access),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", Review::Rules),
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", Review::Who),
];

impl Review {
    pub(crate) fn of(target: &Target) -> Option<Self> {
        REVIEWS
            .iter()
            .find(|(group, plural, _, _)| {
                target.group == *group
                    && target.version == "v1"
                    && target.plural == *plural
                    && target.name.is_empty()
                    && target.namespace.is_empty()
            })
            .map(|(_, _, _, review)| *review)
    }
}

pub(super) async fn answer(_: &Api, user: &User, review: Review, parts: &Parts, body: Body) -> ApiResult<Response> {
    if parts.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    if user.is_anonymous() {
        return Err(ApiError::forbidden_path(&user.name, "post", parts.uri.path()));
    }
    let form = negotiate::negotiate(&parts.headers, None)?;
    let bytes = body::read(body).await?;
    let mut object = body::parse(body::media(&parts.headers), &bytes)?.value;
    if !object.is_object() {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    }
    object["metadata"] = json!({});
    object["status"] = match review {
        Review::Access => json!({ "allowed": access(user, &object["spec"])? }),
        Review::Rules => rules(user),
        Review::Who => json!({ "userInfo": { "username": user.name, "groups": user.groups } }),
    };
    if let Some((group, _, kind, _)) = REVIEWS.iter().find(|(_, _, _, one)| *one == review) {
        object["apiVersion"] = json!(format!("{group}/v1"));
        object["kind"] = json!(kind);
    }
    Ok(encode(StatusCode::CREATED, &object, form))
}

fn access(user: &User, spec: &Value) -> ApiResult<bool> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
        (Value::Object(_), Value::Null) => {
            let attributes = &spec["resourceAttributes"];
            Ok(user.may(&Action {
                verb: &text(&attributes["verb"]),
                group: &text(&attributes["group"]),
                resource: &text(&attributes["resource"]),
                subresource: &text(&attributes["subresource"]),
                namespace: &text(&attributes["namespace"]),
            }))
        }
        (Value::Null, Value::Object(_)) => Ok(user.is_master()
            || text(&spec["nonResourceAttributes"]["verb"]) == "get"
                && super::fixed::is_open_to_all(&text(&spec["nonResourceAttributes"]["path"]))),
        _ => {
            let subject = Subject {
                group: "authorization.k8s.io",
                plural: "selfsubjectaccessreviews",
                kind: "SelfSubjectAccessReview",
            };
            let cause = Cause::invalid(
                "spec.resourceAttributes",
                &spec["resourceAttributes"],
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            );
            Err(ApiError::invalid(subject, "", &[cause]))
        }
    }
}

fn rules(user: &User) -> Value {
    let mut resources: Vec<Value> = user
        .rules
        .iter()
        .map(|rule| json!({ "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources }))
        .collect();
    let mut paths = vec![json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version"] })];
    if user.is_master() {
        resources.push(json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
        paths.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
    }
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}
