//! DELETE of a collection.

use axum::body::Body;
use axum::response::Response;

use super::delete::{self, Options, Outcome};
use super::{Call, list, read};
use crate::error::{ApiError, ApiResult};

pub(super) async fn delete(call: Call, body: Body) -> ApiResult<Response> {
    if call.resource.namespaced && call.target.namespace.is_empty() {
        return Err(ApiError::path_not_found());
    }
    let (media, bytes) = read(&call, body).await?;
    let options = Options::read(&call, &media, &bytes)?;
    let mut page = list::page(&call).await?;
    let mut answered = Vec::with_capacity(page.objects.len());
    for object in std::mem::take(&mut page.objects) {
        match delete::remove(&call, object.clone(), &options).await {
            Ok(Outcome::Gone(object) | Outcome::Waiting(object)) => answered.push(object),
            Ok(Outcome::Would(..)) => answered.push(object),
            // Somebody else deleted it meanwhile.
            Err(error) if error.reason == "NotFound" => {}
            Err(error) => return Err(error),
        }
    }
    page.objects = answered;
    list::respond(&call, &page)
}
