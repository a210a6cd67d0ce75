//! From JSON Schema as CRDs and OpenAPI documents write it to [`Schema`].

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Value};

use super::{Checks, Kind, ListKind, PatchStrategy, Schema, cel, join};
use crate::error::Cause;

/// The schema of a CRD's version. Problems (a bad pattern, a rule that cannot be compiled) are named under `path`.
pub(crate) fn compile(schema: &Value, path: &str) -> Result<Schema, Vec<Cause>> {
    let mut compiler = Compiler { definitions: None, open: Vec::new(), problems: Vec::new() };
    let compiled = compiler.node(schema, path);
    if compiler.problems.is_empty() { Ok(compiled) } else { Err(compiler.problems) }
}

/// The named schema of an OpenAPI document, references resolved. A type that contains itself is open below the second occurrence.
pub(crate) fn compile_document(definitions: &Map<String, Value>, name: &str) -> Schema {
    let mut compiler = Compiler { definitions: Some(definitions), open: Vec::new(), problems: Vec::new() };
    compiler.reference(name)
}

struct Compiler<'a> {
    definitions: Option<&'a Map<String, Value>>,
    open: Vec<String>,
    problems: Vec<Cause>,
}

impl Compiler<'_> {
    fn reference(&mut self, name: &str) -> Schema {
        let short = name.rsplit('/').next().unwrap_or(name);
        match short {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => {
                return Schema { kind: Kind::Quantity, ..Schema::default() };
            }
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => {
                return Schema { kind: Kind::IntOrString, ..Schema::default() };
            }
            // Raw JSON: its members are nobody's fields.
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" | "io.k8s.apimachinery.pkg.runtime.RawExtension" => {
                return Schema { kind: Kind::Object, preserve_unknown: true, atomic: true, ..Schema::default() };
            }
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps" => {
                return Schema { kind: Kind::Object, preserve_unknown: true, ..Schema::default() };
            }
            _ => {}
        }
        let Some(definition) = self.definitions.and_then(|definitions| definitions.get(short)) else {
            return Schema { preserve_unknown: true, ..Schema::default() };
        };
        if self.open.iter().any(|name| name == short) {
            return Schema { preserve_unknown: true, ..Schema::default() };
        }
        self.open.push(short.to_owned());
        let definition = definition.clone();
        let schema = self.node(&definition, "");
        self.open.pop();
        schema
    }

    fn is_always(&self, json: &Value) -> bool {
        self.definitions.is_some() && json["default"].as_object().is_some_and(Map::is_empty)
    }

    fn node(&mut self, json: &Value, path: &str) -> Schema {
        if let Some(name) = json["$ref"].as_str() {
            let name = name.to_owned();
            return self.reference(&name);
        }
        // Kubernetes' documents write a reference with neighbours as `allOf: [{$ref}]`.
        if self.definitions.is_some()
            && let Some([only]) = json["allOf"].as_array().map(Vec::as_slice)
            && only.get("$ref").is_some()
        {
            let mut schema = self.node(only, path);
            Self::extensions(json, &mut schema);
            schema.always = self.is_always(json);
            return schema;
        }
        let flag = |name: &str| json[name].as_bool().unwrap_or(false);
        let mut schema = Schema {
            kind: kind_of(json),
            // A builtin kind's decoder reads null as absent everywhere, and its encoder writes some.
            nullable: self.definitions.is_some() || flag("nullable"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            ..Schema::default()
        };
        if let Some(properties) = json["properties"].as_object() {
            let below = join(path, "properties");
            let mut map = BTreeMap::new();
            let required = strings(&json["required"]);
            for (name, property) in properties {
                let mut compiled = self.node(property, &format!("{below}[{name}]"));
                // A required list of a Go struct is written even when it is nil.
                compiled.always |=
                    self.definitions.is_some() && compiled.kind == Kind::Array && required.contains(name);
                map.insert(name.clone(), Arc::new(compiled));
            }
            schema.properties = map;
        }
        match &json["additionalProperties"] {
            Value::Bool(true) => {
                schema.additional = Some(Arc::new(Schema { preserve_unknown: true, ..Schema::default() }));
            }
            additional @ Value::Object(_) => {
                schema.additional = Some(Arc::new(self.node(additional, &join(path, "additionalProperties"))));
            }
            _ => {}
        }
        if json["items"].is_object() {
            schema.items = Some(Arc::new(self.node(&json["items"], &join(path, "items"))));
        }
        schema.required = strings(&json["required"]);
        schema.always = self.is_always(json);
        // The documents give Go's zero values as defaults too; those say nothing.
        let zero = |default: &Value| match default {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Array(_) | Value::Bool(_) => false,
        };
        schema.default = json
            .get("default")
            .filter(|default| if self.definitions.is_some() { !zero(default) } else { !default.is_null() })
            .cloned();
        Self::extensions(json, &mut schema);
        schema.checks = self.checks(json, path);
        if let Some(rules) = json["x-kubernetes-validations"].as_array() {
            for (index, rule) in rules.iter().enumerate() {
                match cel::Rule::compile(rule) {
                    Ok(rule) => schema.rules.push(rule),
                    Err(why) => {
                        let field = format!("{}[{index}].rule", join(path, "x-kubernetes-validations"));
                        self.problems.push(Cause::invalid(field, &rule["rule"], &why));
                    }
                }
            }
        }
        schema
    }

    fn extensions(json: &Value, schema: &mut Schema) {
        match json["x-kubernetes-list-type"].as_str() {
            Some("set") => schema.list = ListKind::Set,
            Some("map") => schema.list = ListKind::Map(strings(&json["x-kubernetes-list-map-keys"])),
            _ => {}
        }
        if json["x-kubernetes-map-type"].as_str() == Some("atomic") {
            schema.atomic = true;
        }
        if let Some(strategy) = json["x-kubernetes-patch-strategy"].as_str()
            && strategy.split(',').any(|word| word == "merge")
        {
            schema.patch = PatchStrategy::Merge(json["x-kubernetes-patch-merge-key"].as_str().map(str::to_owned));
        }
    }

    fn checks(&mut self, json: &Value, path: &str) -> Option<Box<Checks>> {
        const NAMES: [&str; 16] = [
            "enum",
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "pattern",
            "format",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !NAMES.iter().any(|name| json.get(*name).is_some()) {
            return None;
        }
        let number = |name: &str| json[name].as_f64();
        let count = |name: &str| json[name].as_u64();
        let exclusive = |name: &str| json[name].as_bool().unwrap_or(false);
        let pattern = json["pattern"].as_str().and_then(|pattern| match Regex::new(pattern) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let field = join(path, "pattern");
                self.problems.push(Cause::invalid(
                    field,
                    &json["pattern"],
                    &format!("must be a valid regular expression, but isn't: {error}"),
                ));
                None
            }
        });
        let mut branches = |name: &str| -> Vec<Schema> {
            let mut found = Vec::new();
            for (index, branch) in json[name].as_array().into_iter().flatten().enumerate() {
                found.push(self.node(branch, &format!("{}[{index}]", join(path, name))));
            }
            found
        };
        Some(Box::new(Checks {
            enumeration: json["enum"].as_array().cloned().unwrap_or_default(),
            minimum: number("minimum").map(|bound| (bound, exclusive("exclusiveMinimum"))),
            maximum: number("maximum").map(|bound| (bound, exclusive("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern,
            format: json["format"].as_str().map(str::to_owned),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of: branches("allOf"),
            any_of: branches("anyOf"),
            one_of: branches("oneOf"),
            not: json["not"].is_object().then(|| self.node(&json["not"], &join(path, "not"))),
        }))
    }
}

fn kind_of(json: &Value) -> Kind {
    if json["x-kubernetes-int-or-string"].as_bool() == Some(true) {
        return Kind::IntOrString;
    }
    match json["type"].as_str() {
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some("string") => Kind::String,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        _ => Kind::Any,
    }
}

fn strings(json: &Value) -> Vec<String> {
    json.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
