//! Object metadata: names, labels, what the server sets, what a client may change.

use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult, Cause};
use crate::schema::{self, builtin};

/// Longest name of any object.
const NAME_LENGTH: usize = 253;
/// All annotations of an object together.
const ANNOTATION_BYTES: usize = 256 << 10;

/// The letters of generated names: no vowels, nothing that is mistaken for another.
const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

pub(crate) fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= NAME_LENGTH
        && !text.is_empty()
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_qualified_part(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && text.ends_with(|letter: char| letter.is_ascii_alphanumeric())
}

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
pub(crate) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

pub(crate) fn label_key_problem(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| !is_dns_subdomain(prefix)) || !is_qualified_part(name) {
        Some(QUALIFIED)
    } else {
        None
    }
}

pub(crate) fn label_value_problem(value: &str) -> Option<&'static str> {
    if value.is_empty() || is_qualified_part(value) { None } else { Some(LABEL_VALUE) }
}

/// Which rule names of a kind follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum NameRule {
    #[default]
    Subdomain,
    /// Namespaces.
    Label,
}

/// Reads the metadata as kube-apiserver's decoder does: nulls are absent, unknown members are dropped and named in
/// `dropped`, wrong types are 400.
pub(crate) fn normalise(object: &mut Value, dropped: &mut Vec<String>) -> ApiResult<()> {
    let Some(members) = object.as_object_mut() else {
        return Err(ApiError::bad_request("the body is not an object"));
    };
    let metadata = members.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let schema = builtin::object_meta();
    schema::drop_nulls(metadata, Some(&schema));
    schema::prune(metadata, &schema, "metadata", dropped);
    if let Some(cause) =
        schema::validate(metadata, &schema, None).into_iter().find(|cause| cause.reason == "FieldValueTypeInvalid")
    {
        return Err(ApiError::bad_request(format!("metadata.{}: {}", cause.field, cause.message)));
    }
    // Empty collections are absent, as Go's omitempty has it.
    if let Some(metadata) = metadata.as_object_mut() {
        for name in ["labels", "annotations", "finalizers", "ownerReferences", "managedFields"] {
            let empty = metadata.get(name).is_some_and(|value| {
                value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
            });
            if empty {
                metadata.remove(name);
            }
        }
        for name in ["name", "namespace", "generateName", "uid", "resourceVersion", "selfLink"] {
            if metadata.get(name).and_then(Value::as_str) == Some("") {
                metadata.remove(name);
            }
        }
        metadata.remove("selfLink");
    }
    Ok(())
}

pub(crate) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"][name].as_str().unwrap_or_default()
}

pub(crate) fn set(object: &mut Value, name: &str, value: Value) {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"][name] = value;
}

pub(crate) fn remove(object: &mut Value, name: &str) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove(name);
    }
}

/// Makes `to`'s member the same as `from`'s, absent included.
pub(crate) fn keep(to: &mut Value, from: &Value, name: &str) {
    match from["metadata"].get(name) {
        Some(value) => set(to, name, value.clone()),
        None => remove(to, name),
    }
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some_and(|at| !at.is_null())
}

/// A name out of `prefix` and five random letters; `random` are the five bytes they are made of.
pub(crate) fn generated_name(prefix: &str, random: [u8; 5]) -> String {
    let mut name: String = prefix.chars().take(58).collect();
    for byte in random {
        name.push(char::from(SUFFIX_LETTERS[usize::from(byte) % SUFFIX_LETTERS.len()]));
    }
    name
}

/// What is wrong with the metadata of a new or changed object.
pub(crate) fn problems(object: &Value, rule: NameRule) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        match rule {
            NameRule::Subdomain if name.len() > NAME_LENGTH => {
                causes.push(Cause::invalid("metadata.name", &metadata["name"], "must be no more than 253 characters"));
            }
            NameRule::Subdomain if !is_dns_subdomain(name) => {
                causes.push(Cause::invalid("metadata.name", &metadata["name"], SUBDOMAIN));
            }
            NameRule::Label if !is_dns_label(name) => {
                causes.push(Cause::invalid("metadata.name", &metadata["name"], DNS_LABEL));
            }
            _ => {}
        }
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if let Some(problem) = label_key_problem(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), problem));
        }
        if let Some(problem) = label_value_problem(value.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid("metadata.labels", value, problem));
        }
    }
    let mut bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if let Some(problem) = label_key_problem(&key.to_ascii_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), problem));
        }
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > ANNOTATION_BYTES {
        causes.push(Cause::new(
            "FieldValueTooLong",
            "metadata.annotations",
            format!("Too long: may not be more than {ANNOTATION_BYTES} bytes"),
        ));
    }
    for finalizer in finalizers(object) {
        if label_key_problem(finalizer).is_some() {
            causes.push(Cause::invalid("metadata.finalizers", &json!(finalizer), QUALIFIED));
        }
    }
    owner_problems(metadata, &mut causes);
    causes
}

fn owner_problems(metadata: &Value, causes: &mut Vec<Cause>) {
    let mut controllers = 0;
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        for name in ["apiVersion", "kind", "name", "uid"] {
            if owner[name].as_str().unwrap_or_default().is_empty() {
                let field = format!("metadata.ownerReferences.{name}");
                let detail = if name == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(Cause::invalid(field, &json!(""), detail));
            }
        }
        if owner["controller"].as_bool() == Some(true) {
            controllers += 1;
        }
    }
    if controllers > 1 {
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            &metadata["ownerReferences"],
            "Only one reference can have Controller set to true. Found \"true\" in references",
        ));
    }
}

/// Finalizers that an object under deletion may not gain.
pub(crate) fn new_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    if !is_deleting(old) {
        return None;
    }
    let before = finalizers(old);
    let added: Vec<String> =
        finalizers(new).into_iter().filter(|name| !before.contains(name)).map(|name| format!("{name:?}")).collect();
    if added.is_empty() {
        return None;
    }
    Some(Cause::forbidden(
        "metadata.finalizers",
        &format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_a_decoder_would() {
        let mut object = json!({"metadata": {"name": "a", "creationTimestamp": null, "bogus": 1, "labels": {}}});
        let mut dropped = Vec::new();
        normalise(&mut object, &mut dropped).unwrap();
        assert_eq!(object, json!({"metadata": {"name": "a"}}));
        assert_eq!(dropped, ["metadata.bogus"]);
        assert!(normalise(&mut json!({"metadata": {"labels": "x"}}), &mut Vec::new()).is_err());
    }

    #[test]
    fn generated_names_cut_the_prefix() {
        let name = generated_name(&"x".repeat(80), [0, 1, 2, 26, 27]);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("bcd9b"), "{name}");
    }
}
