//! Keeping `metadata.managedFields` through creates, updates and applies.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::{Set, typed};
use crate::error::{ApiError, ApiResult, Cause};
use crate::meta;
use crate::schema::Schema;

/// Who writes, and through what.
#[derive(Debug, Clone)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) api_version: &'a str,
    pub(crate) now: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    operation: Operation,
    api_version: String,
    subresource: String,
    time: Option<String>,
    set: Set,
}

impl Entry {
    fn parse(json: &Value) -> Option<Self> {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            manager: text("manager"),
            operation: match json["operation"].as_str()? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            },
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: json["time"].as_str().map(str::to_owned),
            set: Set::parse(json.get("fieldsV1")?)?,
        })
    }

    fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("manager".into(), json!(self.manager));
        map.insert("operation".into(), json!(self.operation.name()));
        map.insert("apiVersion".into(), json!(self.api_version));
        if let Some(time) = &self.time {
            map.insert("time".into(), json!(time));
        }
        map.insert("fieldsType".into(), json!("FieldsV1"));
        map.insert("fieldsV1".into(), self.set.to_json());
        if !self.subresource.is_empty() {
            map.insert("subresource".into(), json!(self.subresource));
        }
        Value::Object(map)
    }

    fn is(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }
}

fn parse(managed: &Value) -> Option<Vec<Entry>> {
    managed.as_array()?.iter().map(Entry::parse).collect()
}

fn entries(object: &Value) -> Vec<Entry> {
    parse(&object["metadata"]["managedFields"]).unwrap_or_default()
}

fn store(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.set.is_empty());
    entries.sort_by(|a, b| {
        (a.operation == Operation::Update, &a.time, &a.manager, &a.subresource).cmp(&(
            b.operation == Operation::Update,
            &b.time,
            &b.manager,
            &b.subresource,
        ))
    });
    if entries.is_empty() {
        meta::remove(object, "managedFields");
    } else {
        let json: Vec<Value> = entries.iter().map(Entry::to_json).collect();
        meta::set(object, "managedFields", Value::Array(json));
    }
}

/// What identifies an object and what the server sets has no owner.
fn strip(set: &mut Set) {
    set.owned = false;
    set.children.remove("f:apiVersion");
    set.children.remove("f:kind");
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.owned = false;
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            metadata.children.remove(&format!("f:{name}"));
        }
        if metadata.is_empty() {
            set.children.remove("f:metadata");
        }
    }
}

/// Cuts `set` down to what the endpoint can write: `/status` writes status, the object's own path everything else.
fn reset(set: &mut Set, writer: &Writer<'_>, has_status: bool) {
    if writer.subresource == "status" {
        set.children.retain(|element, _| element == "f:status");
    } else if has_status {
        set.children.remove("f:status");
    }
}

fn stamp(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Records an update of `old` (`None`: a create) to `new`, whose `managedFields` are replaced.
pub(crate) fn record_update(old: Option<&Value>, new: &mut Value, schema: &Schema, writer: &Writer<'_>) {
    // A client may edit the record itself; on a subresource it may not.
    let given = new["metadata"].get("managedFields").cloned();
    let is_reset = given.as_ref().is_some_and(|given| *given == json!([{}]));
    let mut managers = match (&given, old) {
        _ if is_reset => Vec::new(),
        (Some(given), _) if writer.subresource.is_empty() => {
            parse(given).filter(|given| !given.is_empty()).unwrap_or_else(|| old.map(entries).unwrap_or_default())
        }
        (_, Some(old)) => entries(old),
        (_, None) => Vec::new(),
    };
    let (mut changed, mut removed) = (Set::default(), Set::default());
    // A new object of a builtin kind is compared with an empty one, as Go's zero value is.
    let empty = Value::Object(Map::new());
    let before = old.or_else(|| schema.properties.values().any(|part| part.always).then_some(&empty));
    typed::compare(before, Some(new), schema, &mut changed, &mut removed);
    strip(&mut changed);
    strip(&mut removed);
    if !changed.is_empty() || !removed.is_empty() {
        for entry in &mut managers {
            entry.set.subtract(&removed);
            if !entry.is(writer, Operation::Update) {
                entry.set.subtract(&changed);
            }
        }
        if !changed.is_empty() {
            match managers.iter_mut().find(|entry| entry.is(writer, Operation::Update)) {
                Some(entry) => {
                    let before = entry.set.clone();
                    entry.set.union(&changed);
                    if entry.set != before {
                        entry.time = Some(stamp(writer.now));
                    }
                }
                None => managers.push(Entry {
                    manager: writer.manager.to_owned(),
                    operation: Operation::Update,
                    api_version: writer.api_version.to_owned(),
                    subresource: writer.subresource.to_owned(),
                    time: Some(stamp(writer.now)),
                    set: changed,
                }),
            }
        }
    }
    store(new, managers);
}

/// Applies `config` to `live` (`None`: a create) and records who owns what.
pub(crate) fn apply(
    live: Option<&Value>,
    config: &Value,
    schema: &Schema,
    writer: &Writer<'_>,
    force: bool,
    has_status: bool,
) -> ApiResult<Value> {
    let mut claimed = Set::default();
    typed::fields_of(config, schema, &mut claimed);
    strip(&mut claimed);
    reset(&mut claimed, writer, has_status);

    let mut managers = live.map(entries).unwrap_or_default();
    if let Some(live) = live
        && managers.is_empty()
    {
        // What existed before the first apply gets an owner too; otherwise the first apply would silently take all of it.
        let mut everything = Set::default();
        typed::fields_of(live, schema, &mut everything);
        strip(&mut everything);
        managers.push(Entry {
            manager: "before-first-apply".to_owned(),
            operation: Operation::Update,
            api_version: writer.api_version.to_owned(),
            subresource: String::new(),
            time: Some(stamp(writer.now)),
            set: everything,
        });
    }

    let mut config = config.clone();
    meta::remove(&mut config, "managedFields");
    let mut merged = typed::merge(live, &config, schema);
    let previous = managers.iter().position(|entry| entry.is(writer, Operation::Apply)).map(|at| managers.remove(at));

    conflicts(live, &merged, schema, &mut managers, writer, force)?;

    if let Some(previous) = &previous {
        let mut kept = claimed.clone();
        for entry in &managers {
            kept.union(&entry.set);
        }
        typed::remove(&mut merged, schema, &previous.set, &kept);
        // Fields of the applied state that are gone belong to nobody any more.
        let (mut changed, mut removed) = (Set::default(), Set::default());
        typed::compare(live, Some(&merged), schema, &mut changed, &mut removed);
        for entry in &mut managers {
            entry.set.subtract(&removed);
        }
    }
    let time = match &previous {
        Some(previous) if previous.set == claimed => previous.time.clone(),
        _ => Some(stamp(writer.now)),
    };
    managers.push(Entry {
        manager: writer.manager.to_owned(),
        operation: Operation::Apply,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time,
        set: claimed,
    });
    store(&mut merged, managers);
    Ok(merged)
}

/// Refuses to change what others own, or with `force` takes it from them.
fn conflicts(
    live: Option<&Value>,
    merged: &Value,
    schema: &Schema,
    managers: &mut [Entry],
    writer: &Writer<'_>,
    force: bool,
) -> ApiResult<()> {
    let Some(live) = live else { return Ok(()) };
    let (mut changed, mut removed) = (Set::default(), Set::default());
    typed::compare(Some(live), Some(merged), schema, &mut changed, &mut removed);
    strip(&mut changed);
    let mut causes = Vec::new();
    for entry in managers {
        let common = entry.set.intersection(&changed);
        if common.is_empty() {
            continue;
        }
        if force {
            entry.set.subtract(&common);
            continue;
        }
        let mut message = format!("conflict with {:?}", entry.manager);
        if !entry.subresource.is_empty() {
            message.push_str(&format!(" with subresource {:?}", entry.subresource));
        }
        if entry.operation == Operation::Update || entry.api_version != writer.api_version {
            message.push_str(&format!(" using {}", entry.api_version));
        }
        for path in common.paths() {
            causes.push(Cause::new("FieldManagerConflict", path, message.clone()));
        }
    }
    causes.sort_by(|a, b| (&a.message, &a.field).cmp(&(&b.message, &b.field)));
    if causes.is_empty() { Ok(()) } else { Err(ApiError::apply_conflict(&causes)) }
}
