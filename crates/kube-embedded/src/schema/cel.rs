//! `x-kubernetes-validations`: rules in CEL.
//!
//! The evaluator's parser recurses, so a rule's length and nesting are bounded before it sees it, and it parses on a
//! thread of its own with a large stack. Rules come from whoever may write CRDs, which is an administrator.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, Program, Value as CelValue};
use serde_json::Value;

use super::{Kind, Schema, join};
use crate::error::Cause;

/// Longest rule in bytes.
const LONGEST: usize = 8 << 10;
/// Deepest nesting of brackets.
const DEEPEST: usize = 24;
/// Stack of the parsing thread: the parser takes some 50 KiB a level in a debug build.
const PARSER_STACK: usize = 16 << 20;
/// What all rules of one write may take together.
const TIME: Duration = Duration::from_millis(500);

/// Bounds what the rules of one write cost.
pub(crate) struct Budget {
    started: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

/// A compiled rule.
pub(crate) struct Rule {
    text: String,
    program: Program,
    message: Option<String>,
    message_expression: Option<Program>,
    reason: &'static str,
    field_path: Option<String>,
    uses_old: bool,
    optional_old: bool,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule").field("text", &self.text).finish_non_exhaustive()
    }
}

/// The functions, registered once: a context of a rule is an inner scope of this one.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

impl Rule {
    /// Compiles `{rule, message, ..}`, or says what is wrong with it.
    pub(crate) fn compile(json: &Value) -> Result<Self, String> {
        let text = json["rule"].as_str().unwrap_or_default().trim().to_owned();
        if text.is_empty() {
            return Err("rule is not specified".to_owned());
        }
        let program = parse(&text)?;
        let variables: Vec<String> = program.references().variables().iter().map(|name| (*name).to_owned()).collect();
        let message_expression = match json["messageExpression"].as_str().map(str::trim) {
            Some(expression) if !expression.is_empty() => Some(parse(expression)?),
            _ => None,
        };
        let uses_old = variables.iter().any(|name| name == "oldSelf");
        Ok(Self {
            program,
            message: json["message"].as_str().filter(|message| !message.is_empty()).map(str::to_owned),
            message_expression,
            reason: match json["reason"].as_str() {
                Some("FieldValueForbidden") => "FieldValueForbidden",
                Some("FieldValueRequired") => "FieldValueRequired",
                Some("FieldValueDuplicate") => "FieldValueDuplicate",
                _ => "FieldValueInvalid",
            },
            field_path: json["fieldPath"].as_str().map(|path| path.trim_start_matches('.').to_owned()),
            uses_old,
            optional_old: json["optionalOldSelf"].as_bool().unwrap_or(false),
            text,
        })
    }

    /// Whether the rule compares with the state before.
    pub(crate) fn is_transition(&self) -> bool {
        self.uses_old
    }

    /// The cause to report if `value` breaks the rule.
    pub(super) fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        schema: &Schema,
        path: &str,
        budget: &mut Budget,
    ) -> Option<Cause> {
        if self.uses_old && old.is_none() && !self.optional_old {
            return None;
        }
        let field = match &self.field_path {
            Some(below) => join(path, below),
            None => path.to_owned(),
        };
        let broken = |detail: String| self.cause(&field, value, &detail);
        if budget.started.elapsed() > TIME {
            return Some(broken("the validation rules of this object take too long; make them simpler".to_owned()));
        }
        let mut context = FUNCTIONS.new_inner_scope();
        context.add_variable_from_value("self", to_cel(value, schema));
        if self.uses_old {
            let old = old.map_or(CelValue::Null, |old| to_cel(old, schema));
            context.add_variable_from_value("oldSelf", old);
        }
        match self.program.execute(&context) {
            Ok(CelValue::Bool(true)) => None,
            Ok(CelValue::Bool(false)) => {
                let computed = self.message_expression.as_ref().and_then(|program| match program.execute(&context) {
                    Ok(CelValue::String(text)) if !text.trim().is_empty() => Some(text.to_string()),
                    _ => None,
                });
                let message =
                    computed.or_else(|| self.message.clone()).unwrap_or_else(|| format!("failed rule: {}", self.text));
                Some(broken(message))
            }
            Ok(other) => {
                Some(broken(format!("rule evaluates to {:?}, not to a boolean: {}", other.type_of(), self.text)))
            }
            Err(error) => {
                let rule = self.message.as_ref().unwrap_or(&self.text);
                let shown = Value::from(schema.kind.name());
                Some(Cause::invalid(field.as_str(), &shown, &format!("{error} evaluating rule: {rule}")))
            }
        }
    }

    fn cause(&self, field: &str, value: &Value, detail: &str) -> Cause {
        match self.reason {
            "FieldValueForbidden" => Cause::forbidden(field, detail),
            "FieldValueRequired" => Cause::required(field, detail),
            "FieldValueDuplicate" => Cause::duplicate(field, value),
            _ => {
                // Objects and lists are not shown.
                if value.is_object() || value.is_array() {
                    return Cause::new("FieldValueInvalid", field, format!("Invalid value: {detail}"));
                }
                Cause::invalid(field, value, detail)
            }
        }
    }
}

fn parse(text: &str) -> Result<Program, String> {
    if text.len() > LONGEST {
        return Err(format!("expression is longer than {LONGEST} bytes"));
    }
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    for letter in text.chars() {
        match letter {
            '(' | '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if deepest > DEEPEST {
        return Err(format!("expression nests deeper than {DEEPEST} brackets"));
    }
    let text = text.to_owned();
    std::thread::Builder::new()
        .name("cel-parser".to_owned())
        .stack_size(PARSER_STACK)
        .spawn(move || Program::compile(&text).map_err(|errors| format!("compilation failed: {errors}")))
        .map_err(|error| format!("no thread to parse the expression on: {error}"))?
        .join()
        .map_err(|_| "compilation failed: the parser gave up".to_owned())?
}

/// The value as CEL sees it under its schema: numbers by their declared type, dates and durations as such.
fn to_cel(value: &Value, schema: &Schema) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (schema.kind, number.as_i64()) {
            (Kind::Number, _) | (_, None) => match number.as_u64() {
                Some(number) if schema.kind != Kind::Number => CelValue::UInt(number),
                _ => CelValue::Float(number.as_f64().unwrap_or_default()),
            },
            (_, Some(number)) => CelValue::Int(number),
        },
        Value::String(text) => string_to_cel(text, schema),
        Value::Array(items) => {
            let open = Schema::default();
            let schema = schema.items.as_deref().unwrap_or(&open);
            CelValue::List(Arc::new(items.iter().map(|item| to_cel(item, schema)).collect()))
        }
        Value::Object(members) => {
            let open = Schema::default();
            let mut map = HashMap::with_capacity(members.len());
            for (name, member) in members {
                let (key, schema) = match schema.properties.get(name) {
                    Some(schema) => (escape(name), &**schema),
                    None => (name.clone(), schema.additional.as_deref().unwrap_or(&open)),
                };
                map.insert(Key::String(Arc::new(key)), to_cel(member, schema));
            }
            CelValue::Map(Map { map: Arc::new(map) })
        }
    }
}

fn string_to_cel(text: &str, schema: &Schema) -> CelValue {
    let format = schema.checks.as_ref().and_then(|checks| checks.format.as_deref());
    if schema.kind == Kind::String {
        match format {
            Some("date-time") => {
                if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
                    return CelValue::Timestamp(time);
                }
            }
            Some("byte") => {
                use base64::Engine as _;
                if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text) {
                    return CelValue::Bytes(Arc::new(bytes));
                }
            }
            _ => {}
        }
    }
    CelValue::String(Arc::new(text.to_owned()))
}

/// Property names that are no CEL identifiers, as Kubernetes writes them.
fn escape(name: &str) -> String {
    const RESERVED: [&str; 20] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::super::{compile, validate};
    use serde_json::json;

    #[test]
    fn rules_see_self_and_old_self() {
        let schema = compile(
            &json!({"type": "object", "properties": {
                "replicas": {"type": "integer", "x-kubernetes-validations": [
                    {"rule": "self >= oldSelf", "message": "must not shrink", "reason": "FieldValueForbidden"}]},
                "names": {"type": "array", "items": {"type": "string"}}},
              "x-kubernetes-validations": [
                {"rule": "!has(self.names) || self.names.all(n, n.startsWith('a'))", "messageExpression": "'bad: ' + self.names[0]"}]}),
            "",
        )
        .unwrap();
        let old = json!({"replicas": 3});
        assert!(validate(&json!({"replicas": 1}), &schema, None).is_empty());
        let causes = validate(&json!({"replicas": 1, "names": ["b"]}), &schema, Some(&old));
        let messages: Vec<_> = causes.iter().map(|cause| cause.message.as_str()).collect();
        assert_eq!(messages, ["Invalid value: bad: b", "Forbidden: must not shrink"]);
        assert_eq!(causes[1].field, "replicas");
    }

    #[test]
    fn hostile_rules_are_refused_before_they_are_parsed() {
        let nested = format!("{}true{}", "(".repeat(500), ")".repeat(500));
        for rule in [nested, "self == ".to_owned(), "x".repeat(9000), String::new()] {
            let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]});
            assert!(compile(&schema, "").is_err());
        }
    }
}
