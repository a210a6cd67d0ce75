//! Extractors whose rejection is a [`Problem`].

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Problem;

/// A NUL character, as a URI writes it. Neither Postgres nor a program's arguments can hold one.
const NUL: &str = "%00";

/// A JSON body, in and out. What comes in is an object: serde takes an array for one, with the fields in their order in our code.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), state)
            .await
            .map_err(|rejection| refused(rejection.status(), &rejection.body_text()))?;
        let is_array = bytes.trim_ascii_start().starts_with(b"[");
        let request = Request::from_parts(parts, Body::from(bytes));
        match axum::Json::<T>::from_request(request, state).await {
            Ok(_) if is_array => Err(refused(StatusCode::UNPROCESSABLE_ENTITY, "it is an array: send an object")),
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refused(rejection.status(), &rejection.body_text())),
        }
    }
}

fn refused(status: StatusCode, text: &str) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(status, "body_too_large", "the request body is larger than the server takes");
    }
    Problem::new(status, "invalid_body", format!("the request body: {}", told(text)))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The parameters in the path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.path().contains(NUL) {
            return Err(Problem::bad_request("invalid_path", "the path holds a NUL character, which no name has"));
        }
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::bad_request("invalid_path", format!("the path: {}", rejection.body_text()))),
        }
    }
}

/// The query parameters; lists are `?key=a&key=b`. One without a value is refused: `?until=` must not mean all of time.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for (name, value) in pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            if value.is_empty() {
                let name: String = name.chars().take(60).collect();
                let detail = format!("the query parameter {name:?} is empty: give it a value or leave it out");
                return Err(Problem::bad_request("invalid_query", detail).with_error(name, "it is empty"));
            }
        }
        QueryWithEmpty::from_request_parts(parts, state).await.map(|QueryWithEmpty(value)| Self(value))
    }
}

/// The query parameters of operations for which an empty value means something: an argument of a command, the folder in which one starts.
#[derive(Clone, Copy, Debug)]
pub struct QueryWithEmpty<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryWithEmpty<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains(NUL)) {
            return Err(Problem::bad_request("invalid_query", "the query parameters hold a NUL character"));
        }
        match axum_extra::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum_extra::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::bad_request(
                "invalid_query",
                format!("the query parameters: {}", told(&rejection.body_text())),
            )),
        }
    }
}

/// What a library says of a value that it cannot take, without its own part in it.
fn told(text: &str) -> &str {
    ["Failed to deserialize query string: ", "Failed to deserialize the JSON body into the target type: "]
        .into_iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Asked {
        until: Option<u32>,
        name: Option<String>,
        #[serde(default)]
        arg: Vec<String>,
    }

    async fn asked(query: &str) -> Result<Asked, Problem> {
        let (mut parts, ()) = http::Request::get(format!("/?{query}")).body(()).unwrap().into_parts();
        Query::from_request_parts(&mut parts, &()).await.map(|Query(asked)| asked)
    }

    #[tokio::test]
    async fn an_empty_parameter_is_not_an_absent_one() {
        assert_eq!(asked("").await.unwrap(), Asked { until: None, name: None, arg: vec![] });
        assert_eq!(asked("until=3&name=a%3D&arg=x&arg=y").await.unwrap().arg, ["x", "y"]);
        for query in ["until=", "until", "name=", "arg=x&arg=", "other="] {
            let problem = asked(query).await.unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "invalid_query"), "{query}");
            assert!(problem.detail().contains("is empty"), "{query}: {}", problem.detail());
        }
        for query in ["name=%00", "name=a%00b", "arg=%00"] {
            let problem = asked(query).await.unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "invalid_query"), "{query}");
        }
        assert_eq!(
            asked("until=x").await.unwrap_err().detail(),
            "the query parameters: until: invalid digit found in string"
        );
        let (mut parts, ()) = http::Request::get("/?arg=x&arg=").body(()).unwrap().into_parts();
        let QueryWithEmpty(all) = QueryWithEmpty::<Asked>::from_request_parts(&mut parts, &()).await.unwrap();
        assert_eq!(all.arg, ["x", ""]);
    }

    #[tokio::test]
    async fn a_body_is_an_object() {
        let sent = async |body: &'static str| {
            let request = http::Request::post("/").header("content-type", "application/json").body(Body::from(body));
            let got = Json::<Asked>::from_request(request.unwrap(), &()).await;
            got.map(|Json(asked)| asked.name.unwrap_or_default()).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(sent(r#"{"name":"a"}"#).await, Ok("a".to_owned()));
        for body in [r#"[3,"a",[]]"#, " \n[null,null]", "[]", "7", "null"] {
            assert_eq!(sent(body).await, Err(422), "{body}");
        }
        assert_eq!(sent("[").await, Err(400));
    }
}
