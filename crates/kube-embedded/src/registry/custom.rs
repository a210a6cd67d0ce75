//! Custom resources, out of their CRDs.

use std::sync::Arc;

use serde_json::Value;

use super::{Resource, Scale};
use crate::error::Cause;
use crate::meta::NameRule;
use crate::output::table::Column;
use crate::schema::{self, Schema, builtin};
use crate::store::object::FieldPath;

/// The collection of a CRD's objects.
pub(crate) fn collection(crd: &Value) -> String {
    format!(
        "{}.{}",
        crd["spec"]["names"]["plural"].as_str().unwrap_or_default(),
        crd["spec"]["group"].as_str().unwrap_or_default()
    )
}

/// The served versions of a CRD.
pub(crate) fn resources(crd: &Value) -> Result<Vec<Resource>, Vec<Cause>> {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let text = |value: &Value| -> Box<str> { value.as_str().unwrap_or_default().into() };
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Stored objects carry the facts of the storage version; every version reads them by its position.
    let fields: Arc<[FieldPath]> = versions
        .iter()
        .find(|version| version["storage"].as_bool() == Some(true))
        .map(selectable)
        .unwrap_or_default()
        .into();
    let mut resources = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        if version["served"].as_bool() == Some(false) {
            continue;
        }
        let document = &version["schema"]["openAPIV3Schema"];
        let compiled = schema::compile(document, &format!("spec.versions[{index}].schema.openAPIV3Schema"))?;
        let status = version["subresources"].get("status").is_some_and(|status| !status.is_null());
        let version_name = text(&version["name"]);
        let deprecated = version["deprecated"].as_bool() == Some(true);
        resources.push(Resource {
            group: text(&spec["group"]),
            version: version_name.clone(),
            plural: text(&names["plural"]),
            singular: names["singular"]
                .as_str()
                .map_or_else(|| text(&names["kind"]).to_ascii_lowercase().into(), Into::into),
            kind: text(&names["kind"]),
            list_kind: names["listKind"]
                .as_str()
                .map_or_else(|| format!("{}List", text(&names["kind"])).into(), Into::into),
            short_names: list(&names["shortNames"]),
            categories: list(&names["categories"]),
            namespaced: spec["scope"].as_str() == Some("Namespaced"),
            collection: collection(crd).into(),
            builtin: None,
            storage: version["storage"].as_bool() == Some(true),
            schema: Arc::new(with_object_meta(compiled)),
            status,
            scale: scale(&version["subresources"]["scale"]),
            columns: columns(&version["additionalPrinterColumns"]),
            fields: fields.clone(),
            generation: true,
            names: NameRule::Subdomain,
            terminating: crate::meta::is_deleting(crd),
            document: Some(Arc::new(document.clone())),
            deprecation: deprecated.then(|| {
                version["deprecationWarning"].as_str().map(str::to_owned).unwrap_or_else(|| {
                    format!("{}/{version_name} {} is deprecated", text(&spec["group"]), text(&names["kind"]))
                })
            }),
        });
    }
    Ok(resources)
}

/// The root of a custom resource: its own schema, and the parts that every object has.
fn with_object_meta(mut schema: Schema) -> Schema {
    let text = || Arc::new(Schema { kind: schema::Kind::String, ..Schema::default() });
    schema.properties.insert("apiVersion".to_owned(), text());
    schema.properties.insert("kind".to_owned(), text());
    schema.properties.insert("metadata".to_owned(), builtin::object_meta());
    schema.required.retain(|name| name != "metadata");
    schema
}

fn selectable(version: &Value) -> Vec<FieldPath> {
    version["selectableFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|field| field["jsonPath"].as_str())
        .map(|path| FieldPath::new(path.trim_start_matches('.')))
        .collect()
}

fn scale(scale: &Value) -> Option<Scale> {
    let path = |name: &str| scale[name].as_str().map(|path| path.trim_start_matches('.').to_owned());
    Some(Scale {
        spec_replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        label_selector: path("labelSelectorPath").filter(|path| !path.is_empty()),
    })
}

fn columns(json: &Value) -> Vec<Column> {
    let mut columns = vec![Column::name()];
    match json.as_array().filter(|columns| !columns.is_empty()) {
        Some(own) => columns.extend(own.iter().map(Column::of_crd)),
        None => columns.push(Column::age()),
    }
    columns
}
