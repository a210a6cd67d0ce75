//! From the parsed tree to tasks and services, collecting everything that is wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::yaml::{Node, Place, Value, read};
use super::{AutomationsFile, Finding, MAX_FILE_BYTES, MAX_UNITS, Refused, Role, Service, Task, Trigger};
use crate::domain::plan;

/// Longest readiness timeout.
const MAX_READINESS: Duration = Duration::from_secs(86_400);

/// Reads an automations file.
///
/// # Errors
/// Everything that is wrong with it, by line.
pub fn parse(text: &str) -> Result<AutomationsFile, Refused> {
    not_too_large(text.len())?;
    let mut reader = Reader::default();
    match read(text) {
        Ok(Some(document)) => reader.file(&document),
        Ok(None) => reader.warn(Place::default(), "the file is empty: it defines no task and no service"),
        Err(finding) => reader.errors.push(finding),
    }
    reader.references();
    if reader.errors.is_empty() {
        reader.cycle();
    }
    if reader.errors.is_empty() {
        reader.file.warnings.sort();
        return Ok(reader.file);
    }
    reader.errors.sort();
    Err(Refused(reader.errors))
}

/// The same of bytes that may not be text.
///
/// # Errors
/// As [`parse`]; the first byte that is no UTF-8 has a place too.
pub fn parse_bytes(bytes: &[u8]) -> Result<AutomationsFile, Refused> {
    not_too_large(bytes.len())?;
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let before = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
            let line = before.rsplit('\n').next().unwrap_or_default();
            let place = Place { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 };
            Err(Refused(vec![place.says("the file is not UTF-8 text from here on: save it as UTF-8")]))
        }
    }
}

fn not_too_large(bytes: usize) -> Result<(), Refused> {
    if bytes > MAX_FILE_BYTES {
        let finding = Place::default().says(format!("the file is larger than {} KiB", MAX_FILE_BYTES / 1024));
        return Err(Refused(vec![finding]));
    }
    Ok(())
}

#[derive(Default)]
struct Reader {
    file: AutomationsFile,
    errors: Vec<Finding>,
    /// Where each key stands, and each of its `dependsOn`.
    places: BTreeMap<String, (Place, Vec<(String, Place)>)>,
}

impl Reader {
    fn refuse(&mut self, at: Place, message: impl Into<String>) {
        self.errors.push(at.says(message));
    }

    fn warn(&mut self, at: Place, message: impl Into<String>) {
        self.file.warnings.push(at.says(message));
    }

    fn file(&mut self, document: &Node) {
        for (key, name, value) in self.map(document, "the file").iter() {
            match name.as_str() {
                "services" => self.units(value, "services", Self::service),
                "tasks" => self.units(value, "tasks", Self::task),
                other => self.unknown(key.place, other, "the file", &["services", "tasks"]),
            }
        }
        if self.errors.is_empty() && self.places.is_empty() {
            self.warn(document.place, "the file defines no task and no service");
        }
    }

    fn units(&mut self, node: &Node, what: &'static str, read: fn(&mut Self, &str, Place, &Node)) {
        for (key, name, value) in self.map(node, what).iter() {
            let fits = (1..=128).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            if !fits {
                self.refuse(
                    key.place,
                    format!("{name:?} cannot be a key of {what}: use 1 to 128 letters, digits, _ and -"),
                );
            } else if self.places.contains_key(name) {
                self.refuse(
                    key.place,
                    format!("{name:?} is a task and a service: dependsOn could not tell them apart; rename one"),
                );
            } else if self.places.len() >= MAX_UNITS {
                self.refuse(key.place, format!("there are more than {MAX_UNITS} tasks and services"));
                return;
            } else {
                self.places.insert(name.clone(), (key.place, Vec::new()));
                read(self, name, key.place, value);
            }
        }
    }

    fn service(&mut self, key: &str, at: Place, node: &Node) {
        const KEYS: [&str; 8] =
            ["name", "description", "role", "commands", "triggeredBy", "dependsOn", "readinessTimeout", "runsOn"];
        let of = format!("service {key:?}");
        let (mut name, mut description, mut role) = (None, None, Role::Default);
        let (mut start, mut ready, mut stop) = (None, None, None);
        let (mut readiness_timeout, mut triggered_by, mut depends_on) = (None, Vec::new(), Vec::new());
        for (place, field, value) in self.map(node, &of).iter() {
            match field.as_str() {
                "name" => name = self.text(value, "name"),
                "description" => description = self.optional_text(value, "description"),
                "role" => role = self.role(value),
                "commands" => {
                    for (place, field, value) in self.map(value, "commands").iter() {
                        match field.as_str() {
                            "start" => start = self.command(value, "commands.start"),
                            "ready" => ready = self.command(value, "commands.ready"),
                            "stop" => stop = self.command(value, "commands.stop"),
                            other => self.unknown(place.place, other, "commands", &["start", "ready", "stop"]),
                        }
                    }
                    if start.is_none() && !self.errors.iter().any(|error| error.message.contains("commands.start")) {
                        self.refuse(place.place, format!("{of} has no commands.start"));
                    }
                }
                "triggeredBy" => triggered_by = self.triggers(value, key),
                "dependsOn" => depends_on = self.depends_on(value, key),
                "readinessTimeout" => readiness_timeout = self.duration(value),
                "runsOn" => self.runs_on(value, place.place),
                other => self.unknown(place.place, other, &of, &KEYS),
            }
        }
        if matches!(node.value, Value::Map(_)) {
            if name.is_none() && !self.has(node, "name") {
                self.refuse(at, format!("{of} has no name"));
            }
            if !self.has(node, "commands") {
                self.refuse(at, format!("{of} has no commands.start"));
            }
        }
        if let (Some(timeout), None) = (readiness_timeout, &ready)
            && !Duration::is_zero(&timeout)
        {
            self.warn(
                at,
                format!("{of} has a readinessTimeout and no commands.ready: it is ready when it has started"),
            );
        }
        let (Some(name), Some(start)) = (name, start) else { return };
        let service = Service {
            name,
            description: description.unwrap_or_default(),
            role,
            start,
            ready,
            stop,
            readiness_timeout: readiness_timeout.filter(|timeout| !timeout.is_zero()),
            triggered_by,
            depends_on,
        };
        self.file.services.insert(key.to_owned(), service);
    }

    fn task(&mut self, key: &str, at: Place, node: &Node) {
        const KEYS: [&str; 7] =
            ["name", "description", "command", "dependsOn", "triggeredBy", "runsOn", "prebuildRequiresSuccess"];
        let of = format!("task {key:?}");
        let (mut name, mut description, mut command) = (None, None, None);
        let (mut triggered_by, mut depends_on, mut prebuild_requires_success) = (Vec::new(), Vec::new(), false);
        for (place, field, value) in self.map(node, &of).iter() {
            match field.as_str() {
                "name" => name = self.text(value, "name"),
                "description" => description = self.optional_text(value, "description"),
                "command" => command = self.command(value, "command"),
                "dependsOn" => depends_on = self.depends_on(value, key),
                "triggeredBy" => triggered_by = self.triggers(value, key),
                "prebuildRequiresSuccess" => prebuild_requires_success = self.boolean(value),
                "runsOn" => self.runs_on(value, place.place),
                other => self.unknown(place.place, other, &of, &KEYS),
            }
        }
        if matches!(node.value, Value::Map(_)) && !self.has(node, "command") && !self.has(node, "dependsOn") {
            self.refuse(at, format!("{of} has no command, and no dependsOn that it could stand for"));
        }
        let task = Task {
            name: name.unwrap_or_else(|| key.to_owned()),
            description: description.unwrap_or_default(),
            command,
            triggered_by,
            depends_on,
            prebuild_requires_success,
        };
        self.file.tasks.insert(key.to_owned(), task);
    }

    fn has(&self, node: &Node, field: &str) -> bool {
        matches!(&node.value, Value::Map(entries) if entries.iter().any(|(_, name, _)| name == field))
    }

    fn map(&mut self, node: &Node, what: &str) -> std::rc::Rc<Vec<(Node, String, Node)>> {
        match &node.value {
            Value::Map(entries) => std::rc::Rc::clone(entries),
            Value::Null if matches!(what, "services" | "tasks" | "the file") => std::rc::Rc::default(),
            _ => {
                self.refuse(node.place, format!("{what} must be a map of keys and values"));
                std::rc::Rc::default()
            }
        }
    }

    /// `true` and `false` are commands, as well as what YAML calls booleans.
    fn command(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Value::Text { text, plain: true } if matches!(text.as_str(), "true" | "false") => Some(text.clone()),
            _ => self.text(node, what),
        }
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        if let Some(text) = number_or_boolean(node) {
            self.refuse(node.place, format!("{what} must be text: write \"{text}\""));
            return None;
        }
        self.any_text(node, what)
    }

    fn any_text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Value::Text { text, .. } if !text.trim().is_empty() && !text.contains('\0') => return Some(text.clone()),
            Value::Text { .. } | Value::Null => self.refuse(node.place, format!("{what} is empty")),
            Value::List(_) | Value::Map(_) => self.refuse(node.place, format!("{what} must be text")),
        }
        None
    }

    fn optional_text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Value::Null => None,
            Value::Text { text, .. } if text.trim().is_empty() => Some(String::new()),
            _ => self.text(node, what),
        }
    }

    fn boolean(&mut self, node: &Node) -> bool {
        match &node.value {
            Value::Text { text, plain: true } if matches!(text.as_str(), "true" | "True" | "TRUE") => return true,
            Value::Text { text, plain: true } if matches!(text.as_str(), "false" | "False" | "FALSE") => {}
            _ => self.refuse(node.place, "prebuildRequiresSuccess must be true or false"),
        }
        false
    }

    fn role(&mut self, node: &Node) -> Role {
        match &node.value {
            Value::Null => Role::Default,
            Value::Text { text, .. } => match text.as_str() {
                "" | "default" => Role::Default,
                "editor" => Role::Editor,
                "ai-agent" => Role::AiAgent,
                other => {
                    self.refuse(node.place, format!("{other:?} is not a role: use default, editor or ai-agent"));
                    Role::Default
                }
            },
            Value::List(_) | Value::Map(_) => {
                self.refuse(node.place, "role must be text");
                Role::Default
            }
        }
    }

    /// A list of texts with their places.
    fn list(&mut self, node: &Node, what: &str) -> Vec<(String, Place)> {
        let Value::List(items) = &node.value else {
            if !matches!(node.value, Value::Null) {
                self.refuse(node.place, format!("{what} must be a list"));
            }
            return Vec::new();
        };
        let mut seen = BTreeSet::new();
        let mut texts = Vec::new();
        for item in items.iter() {
            if let Some(text) = self.any_text(item, &format!("an entry of {what}")) {
                if seen.insert(text.clone()) {
                    texts.push((text, item.place));
                } else {
                    self.refuse(item.place, format!("{text:?} is in {what} for the second time"));
                }
            }
        }
        texts
    }

    fn triggers(&mut self, node: &Node, key: &str) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        for (name, at) in self.list(node, "triggeredBy") {
            match Trigger::ALL.into_iter().find(|trigger| trigger.name() == name) {
                Some(trigger) => {
                    if !trigger.fires() {
                        self.warn(at, format!("the trigger {name} of {key:?} is accepted, and not fired yet"));
                    }
                    triggers.push(trigger);
                }
                None => {
                    let known = Trigger::ALL.map(Trigger::name).join(", ");
                    self.refuse(at, format!("{name:?} is not a trigger: use one of {known}"));
                }
            }
        }
        triggers
    }

    fn depends_on(&mut self, node: &Node, key: &str) -> Vec<String> {
        let entries = self.list(node, "dependsOn");
        let keys = entries.iter().map(|(key, _)| key.clone()).collect();
        if let Some((_, places)) = self.places.get_mut(key) {
            *places = entries;
        }
        keys
    }

    fn runs_on(&mut self, node: &Node, at: Place) {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => {
                for (place, name, _) in entries.iter() {
                    match name.as_str() {
                        "docker" | "machine" => self.refuse(
                            place.place,
                            format!("runsOn.{name} is not there yet: without runsOn it runs in the workspace"),
                        ),
                        other => self.unknown(place.place, other, "runsOn", &["docker", "machine"]),
                    }
                }
            }
            _ => self.refuse(at, "runsOn is not there yet: leave it out, and it runs in the workspace"),
        }
    }

    /// `90s`, `5m`, `1h30m`, or a number of seconds.
    fn duration(&mut self, node: &Node) -> Option<Duration> {
        let duration = match &node.value {
            Value::Text { text, .. } => duration(text),
            _ => None,
        };
        match duration {
            Some(duration) if duration <= MAX_READINESS => return Some(duration),
            Some(_) => self.refuse(node.place, "readinessTimeout must be at most 24h"),
            None => self.refuse(node.place, "readinessTimeout must be a duration such as 90s, 5m or 1h30m"),
        }
        None
    }

    fn unknown(&mut self, at: Place, name: &str, of: &str, known: &[&str]) {
        let shown: String = name.chars().take(60).collect();
        self.refuse(at, format!("{shown:?} is not a key of {of}: there are {}", known.join(", ")));
    }

    /// Checks that every `dependsOn` names something else that exists.
    fn references(&mut self) {
        let mut errors = Vec::new();
        for (key, (_, depends_on)) in &self.places {
            for (wanted, at) in depends_on {
                if wanted == key {
                    errors.push(at.says(format!("{key:?} depends on itself")));
                } else if !self.places.contains_key(wanted) {
                    errors.push(at.says(format!(
                        "{key:?} depends on {wanted:?}, which is neither a task nor a service of this file"
                    )));
                }
            }
        }
        self.errors.append(&mut errors);
    }

    fn cycle(&mut self) {
        if let Some(cycle) = plan::cycle(&self.file) {
            // The place of the entry that closes the cycle.
            let (last, first) = (cycle.last(), cycle.first());
            let at = last
                .and_then(|last| self.places.get(last))
                .and_then(|(key, entries)| {
                    let entry = entries.iter().find(|(name, _)| Some(name) == first).map(|(_, at)| *at);
                    entry.or(Some(*key))
                })
                .unwrap_or_default();
            let circle: Vec<&str> = cycle.iter().chain(first).map(String::as_str).collect();
            self.refuse(at, format!("dependsOn goes in a circle: {}", circle.join(" -> ")));
        }
    }
}

/// What YAML takes for a number or a boolean, as it was written.
fn number_or_boolean(node: &Node) -> Option<&str> {
    let Value::Text { text, plain: true } = &node.value else { return None };
    let digits = text.trim_start_matches(['-', '+']);
    let prefixed = |prefix, radix| {
        digits.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.parse::<f64>().is_ok();
    let boolean = matches!(text.as_str(), "true" | "True" | "TRUE" | "false" | "False" | "FALSE");
    (number || boolean || prefixed("0x", 16) || prefixed("0o", 8)).then_some(text)
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| (1..=16).contains(at))?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok().filter(|_| number.starts_with(|c: char| c.is_ascii_digit()))?;
        let (unit_seconds, after) = if let Some(after) = after.strip_prefix("ms") {
            (0.001, after)
        } else {
            let unit_seconds = match after.chars().next()? {
                'h' => 3600.0,
                'm' => 60.0,
                's' => 1.0,
                _ => return None,
            };
            (unit_seconds, after.get(1..)?)
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit_seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_form() {
        let ms = |text| duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("90s"), Some(90_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("1m500ms"), Some(60_500));
        assert_eq!(ms("30"), Some(30_000));
        assert_eq!((ms("1.5s"), ms("0.25h")), (Some(1_500), Some(900_000)));
        assert_eq!(ms("0"), Some(0));
        for bad in ["", "x", "5", "5 m", "-5s", "s", "1.2.3s", ".5s", "5d", "99999999999999999999h"] {
            assert!(bad == "5" || duration(bad).is_none(), "{bad}");
        }
    }
}
