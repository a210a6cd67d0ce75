//! Tables: what `kubectl get` prints.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::jsonpath::JsonPath;
use crate::registry::Resource;

/// Where a cell's content comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Path(JsonPath),
    /// A date, shown as the time since.
    Age(JsonPath),
    Computed(fn(&Value, DateTime<Utc>) -> Value),
}

/// One column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    source: Source,
}

const NAME_TEXT: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_TEXT: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.";

impl Column {
    fn path(path: &str) -> JsonPath {
        JsonPath::parse(path).unwrap_or_default()
    }

    pub(crate) fn name() -> Self {
        Self {
            name: "Name".into(),
            kind: "string".into(),
            format: "name".into(),
            description: NAME_TEXT.into(),
            priority: 0,
            source: Source::Path(Self::path(".metadata.name")),
        }
    }

    /// The time since creation, of a custom resource without columns of its own.
    pub(crate) fn age() -> Self {
        Self {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: AGE_TEXT.into(),
            priority: 0,
            source: Source::Age(Self::path(".metadata.creationTimestamp")),
        }
    }

    pub(crate) fn computed(name: &str, priority: i64, cell: fn(&Value, DateTime<Utc>) -> Value) -> Self {
        Self {
            name: name.into(),
            kind: "string".into(),
            format: if name == "Name" { "name".into() } else { String::new() },
            description: String::new(),
            priority,
            source: Source::Computed(cell),
        }
    }

    /// One of `additionalPrinterColumns`.
    pub(crate) fn of_crd(json: &Value) -> Self {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let path = JsonPath::parse(&text("jsonPath")).unwrap_or_default();
        let kind = text("type");
        let description = text("description");
        Self {
            source: if kind == "date" { Source::Age(path) } else { Source::Path(path) },
            name: text("name"),
            format: text("format"),
            description: if description.is_empty() {
                format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath"))
            } else {
                description
            },
            priority: json["priority"].as_i64().unwrap_or(0),
            kind,
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    fn cell(&self, object: &Value, now: DateTime<Utc>) -> Value {
        match &self.source {
            Source::Computed(cell) => cell(object, now),
            Source::Age(path) => match path.find(object).first() {
                Some(Value::String(at)) => age(Some(at), now).into(),
                _ => Value::Null,
            },
            Source::Path(path) => {
                let found = path.find(object);
                match (found.as_slice(), self.kind.as_str()) {
                    ([] | [Value::Null], _) => Value::Null,
                    ([one], "integer") => one.as_i64().map_or(Value::Null, Value::from),
                    ([one], "number") => one.as_f64().map_or(Value::Null, Value::from),
                    ([one], "boolean") => one.as_bool().map_or(Value::Null, Value::from),
                    ([Value::String(text)], _) => Value::from(text.as_str()),
                    ([other], _) => Value::from(other.to_string()),
                    (many, _) => Value::from(
                        many.iter()
                            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
                            .collect::<Vec<_>>()
                            .join(","),
                    ),
                }
            }
        }
    }
}

/// The time since `at` as kubectl shows it.
pub(crate) fn age(at: Option<&str>, now: DateTime<Utc>) -> String {
    match at.and_then(|at| DateTime::parse_from_rfc3339(at).ok()) {
        Some(at) => human(now - at.with_timezone(&Utc)),
        None => "<unknown>".to_owned(),
    }
}

/// kubectl's `HumanDuration`: two units at most, fewer the longer it is.
fn human(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds();
    let (minutes, hours) = (duration.num_minutes(), duration.num_hours());
    let days = hours / 24;
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(days, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

/// What a row carries of its object, `includeObject` of the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Include {
    Nothing,
    #[default]
    Metadata,
    Object,
}

/// The object as `PartialObjectMetadata`.
pub(crate) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

/// The Table of `objects`. `definitions` is false for all but the first event of a watch.
pub(crate) fn table(
    resource: &Resource,
    objects: &[Value],
    metadata: Value,
    include: Include,
    definitions: bool,
    now: DateTime<Utc>,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = resource.columns.iter().map(|column| column.cell(object, now)).collect();
            let mut row = Map::new();
            row.insert("cells".into(), Value::Array(cells));
            match include {
                Include::Nothing => row.insert("object".into(), Value::Null),
                Include::Metadata => row.insert("object".into(), partial(object)),
                Include::Object => row.insert("object".into(), object.clone()),
            };
            Value::Object(row)
        })
        .collect();
    let definitions =
        if definitions { Value::Array(resource.columns.iter().map(Column::definition).collect()) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

pub(crate) fn to_bytes(value: &Value) -> Bytes {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        for (seconds, expected) in [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 120, "3h2m"),
            (50 * 3600, "2d2h"),
            (400 * 86_400, "400d"),
        ] {
            assert_eq!(human(TimeDelta::seconds(seconds)), expected);
        }
    }
}
