//! Query parameters that an operation does not have are refused: a filter with a slip in its name must not mean everything.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use url::form_urlencoded;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr, Schema};

use crate::Problem;

/// The query parameters of an operation, and whether each may be repeated.
type Declared = HashMap<String, bool>;

/// Refuses query parameters that the document does not declare for an operation of this router, and repeated ones that are no lists.
pub fn only_declared<S: Clone + Send + Sync + 'static>((router, document): (Router<S>, OpenApi)) -> Router<S> {
    let operations: Arc<HashMap<(Method, String), Declared>> = Arc::new(operations(document));
    router.layer(from_fn(move |request: Request, next: Next| {
        let refused = refused(&operations, &request);
        async move {
            match refused {
                Some(problem) => problem.into_response(),
                None => next.run(request).await,
            }
        }
    }))
}

fn operations(document: OpenApi) -> HashMap<(Method, String), Declared> {
    let mut all = HashMap::new();
    for (path, item) in document.paths.paths {
        for (method, operation) in [
            (Method::GET, item.get),
            (Method::PUT, item.put),
            (Method::POST, item.post),
            (Method::DELETE, item.delete),
            (Method::PATCH, item.patch),
        ] {
            let Some(operation) = operation else { continue };
            all.insert((method, path.clone()), declared(operation));
        }
    }
    all
}

fn declared(operation: Operation) -> Declared {
    let parameters = operation.parameters.into_iter().flatten();
    parameters
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
                let is_list = matches!(parameter.schema, Some(RefOr::T(Schema::Array(_))));
                Some((parameter.name, is_list))
            }
            RefOr::T(_) | RefOr::Ref(_) => None,
        })
        .collect()
}

fn refused(operations: &HashMap<(Method, String), Declared>, request: &Request) -> Option<Problem> {
    let query = request.uri().query().filter(|query| !query.is_empty())?;
    let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let declared = operations.get(&(method, path))?;
    let mut seen = Vec::new();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        match declared.get(&*name) {
            None => return Some(unknown(&name, declared)),
            Some(false) if seen.contains(&name) => return Some(repeated(&name)),
            Some(_) => seen.push(name),
        }
    }
    None
}

fn unknown(name: &str, declared: &Declared) -> Problem {
    let name: String = name.chars().take(60).collect();
    let mut known: Vec<&str> = declared.keys().map(String::as_str).collect();
    known.sort_unstable();
    let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let detail = format!("there is no query parameter {name:?} here: this operation takes {takes}");
    Problem::bad_request("invalid_query", detail).with_error(name, "it is unknown")
}

fn repeated(name: &str) -> Problem {
    let detail = format!("the query parameter {name:?} is there more than once: it takes one value");
    Problem::bad_request("invalid_query", detail).with_error(name, "it is repeated")
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt as _;
    use utoipa::OpenApi as _;

    use super::*;

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(things))]
    struct Document;

    #[utoipa::path(get, path = "/things/{id}", params(("id" = String, Path), ("phase" = Vec<String>, Query), ("name" = Option<String>, Query)))]
    async fn things() {}

    async fn asked(method: &str, uri: &str) -> (u16, String) {
        let router = Router::new().route("/things/{id}", get(things).delete(things));
        let router: Router = only_declared((router, Document::openapi()));
        let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 10_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_an_operation_does_not_take_is_named() {
        for query in ["", "?", "?phase=a&phase=b&name=c", "?n%61me=c", "?&name=c&"] {
            assert_eq!(asked("GET", &format!("/things/1{query}")).await.0, 200, "{query}");
        }
        for (query, named) in [
            ("id=2", r#"{"pointer":"id","detail":"it is unknown"}"#),
            ("name=a&Name=b", r#"{"pointer":"Name","detail":"it is unknown"}"#),
            ("name=a&n%61me=b", r#"{"pointer":"name","detail":"it is repeated"}"#),
            ("=a", r#"{"pointer":"","detail":"it is unknown"}"#),
        ] {
            for method in ["GET", "HEAD"] {
                let (status, body) = asked(method, &format!("/things/1?{query}")).await;
                assert_eq!(status, 400, "{method} {query}");
                assert!(method == "HEAD" || body.contains(named) && body.contains("invalid_query"), "{query}: {body}");
            }
        }
        let (_, body) = asked("GET", "/things/1?nam=c").await;
        assert!(body.contains("this operation takes name, phase"), "{body}");
        assert_eq!(asked("POST", "/things/1?nam=c").await.0, 405);
    }
}
