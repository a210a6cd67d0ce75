//! The OpenAPI document: assembled from the operations, committed as `openapi/api.json`.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use berth_http::{ProblemBody, ProblemResponse};
use utoipa::ToResponse;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Response, Schema};
use utoipa::{PartialSchema as _, ToSchema as _};

/// The document of this service, and with it of others whose operations it serves.
#[must_use]
pub fn document(others: Vec<OpenApi>) -> OpenApi {
    crate::routes::document(others)
}

/// Merges several documents into one; operations need credentials unless they say otherwise.
pub(crate) fn assemble(first: OpenApi, others: Vec<OpenApi>) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Berth")
        .version("1")
        .description(Some("Workspaces from repositories. Errors are RFC 9457 problems with a stable `code`; lists are paged by cursor."))
        .build();
    let either = [
        SecurityRequirement::new::<_, [String; 0], String>("token", []),
        SecurityRequirement::new::<_, [String; 0], String>("session", []),
    ];
    let mut document = OpenApiBuilder::new().info(info).security(Some(either)).build();
    document.merge(first);
    for other in others {
        document.merge(other);
    }
    let components = document.components.get_or_insert_with(Components::new);
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("berth_pat_...")
        .description(Some("A personal access token"))
        .build();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    let cookie = ApiKeyValue::with_description(crate::http::cookie::NAME, "A browser's session");
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let (name, response) = <ProblemResponse as ToResponse<'_>>::response();
    components.responses.insert(name.to_owned(), response);
    let mut schemas = vec![(ProblemBody::name().into_owned(), ProblemBody::schema())];
    ProblemBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for path in document.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.patch];
        for operation in operations.into_iter().flatten() {
            operation.parameters.iter_mut().flatten().for_each(never_empty);
            describe(&mut operation.responses.responses);
        }
    }
    document
}

/// What the extractors demand of every query parameter: it is not empty.
fn never_empty(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else { return };
    if parameter.parameter_in == ParameterIn::Query && schema.schema_type == SchemaType::Type(Type::String) {
        schema.min_length = schema.min_length.or(Some(1));
    }
}

/// OpenAPI requires a description of every response; where the code gives none, it is the status' own phrase.
fn describe(responses: &mut BTreeMap<String, RefOr<Response>>) {
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let phrase = StatusCode::from_bytes(status.as_bytes()).ok().and_then(|status| status.canonical_reason());
            response.description = phrase.unwrap_or("The answer").to_owned();
        }
    }
}

/// The document as it is served and committed, with sorted keys, so that a diff shows what changed.
pub(crate) fn text(document: &OpenApi) -> String {
    let value = serde_json::to_value(document).unwrap_or_default();
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}
