//! Schemas: of custom resources from their CRD, of builtin kinds from Kubernetes' OpenAPI documents, in one form.

pub(crate) mod builtin;
pub(crate) mod cel;
mod compile;
mod default;
mod format;
mod prune;
pub(crate) mod structural;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

pub(crate) use compile::{compile, compile_document};
pub(crate) use default::apply_defaults;
pub(crate) use prune::{drop_nulls, prune};
pub(crate) use validate::{validate, validate_object};

/// The JSON types that a schema node admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// Anything: no type is given.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// A builtin quantity: a string or a number.
    Quantity,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer | Self::IntOrString => "integer",
            Self::Number | Self::Quantity => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list is merged and compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListKind {
    /// One value, replaced whole.
    #[default]
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects with identity in these keys.
    Map(Vec<String>),
}

/// What a strategic merge patch does with a list or map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum PatchStrategy {
    #[default]
    Replace,
    /// Lists of objects by this key, lists of scalars by value.
    Merge(Option<String>),
}

/// Value validations, absent on most nodes.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) enumeration: Vec<Value>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<String>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Schema>,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    /// Go has a struct here, not a pointer: in an object that is there, this part always is, if empty.
    pub(crate) always: bool,
    pub(crate) properties: BTreeMap<String, Arc<Schema>>,
    /// The schema of members that `properties` does not name.
    pub(crate) additional: Option<Arc<Schema>>,
    pub(crate) items: Option<Arc<Schema>>,
    pub(crate) required: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) preserve_unknown: bool,
    /// A whole Kubernetes object lies here.
    pub(crate) embedded: bool,
    pub(crate) list: ListKind,
    /// `x-kubernetes-map-type: atomic`.
    pub(crate) atomic: bool,
    pub(crate) patch: PatchStrategy,
    pub(crate) checks: Option<Box<Checks>>,
    pub(crate) rules: Vec<cel::Rule>,
}

impl Schema {
    /// The schema of a member, `None` when the object is closed and does not know it.
    pub(crate) fn member(&self, name: &str) -> Option<&Arc<Self>> {
        self.properties.get(name).or(self.additional.as_ref())
    }

    /// Whether unknown members are data rather than mistakes.
    pub(crate) fn is_open(&self) -> bool {
        self.preserve_unknown || self.kind == Kind::Any && self.properties.is_empty() && self.additional.is_none()
    }
}

/// `path.name`, or `name` at the root.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
