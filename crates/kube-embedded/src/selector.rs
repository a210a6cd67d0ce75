//! Label and field selectors.

use crate::error::{ApiError, ApiResult};
use crate::store::object::{FieldPath, Object};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<Box<str>>),
    NotIn(Vec<Box<str>>),
    Exists,
    Missing,
    Above(i64),
    Below(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: Box<str>,
    operator: Operator,
}

/// A parsed `labelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        let mut requirements = Vec::new();
        for part in split_outside_brackets(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(unparsable("found '', expected: identifier after ','"));
            }
            requirements.push(requirement(part)?);
        }
        Ok(Self { requirements })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = object.facts.label(&requirement.key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.iter().any(|one| &**one == value)),
                Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| &**one != value)),
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
                Operator::Above(bound) => number().is_some_and(|number| number > *bound),
                Operator::Below(bound) => number().is_some_and(|number| number < *bound),
            }
        })
    }
}

fn unparsable(why: &str) -> ApiError {
    ApiError::bad_request(format!("unable to parse requirement: {why}"))
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0_usize);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> ApiResult<Requirement> {
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement { key: label_key(key.trim())?, operator: Operator::Missing });
    }
    if let Some(open) = text.find('(') {
        let Some(values) = text[open + 1..].strip_suffix(')') else {
            return Err(unparsable(&format!("found '{text}', expected: ',' or ')'")));
        };
        let values = values.split(',').map(|value| label_value(value.trim())).collect::<ApiResult<Vec<_>>>()?;
        let mut words = text[..open].split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement { key: label_key(key)?, operator: Operator::In(values) }),
            (Some(key), Some("notin"), None) => {
                Ok(Requirement { key: label_key(key)?, operator: Operator::NotIn(values) })
            }
            (_, word, _) => Err(unparsable(&format!(
                "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                word.unwrap_or_default()
            ))),
        };
    }
    let at = text.find(['=', '!', '>', '<']);
    let Some(at) = at else {
        return Ok(Requirement { key: label_key(text)?, operator: Operator::Exists });
    };
    let (key, rest) = text.split_at(at);
    let key = label_key(key.trim())?;
    let number = |text: &str| {
        text.trim().parse::<i64>().map_err(|_| unparsable("for 'Gt', 'Lt' operators, the value must be an integer"))
    };
    let operator = if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        Operator::In(vec![label_value(value.trim())?])
    } else if let Some(value) = rest.strip_prefix("!=") {
        Operator::NotIn(vec![label_value(value.trim())?])
    } else if let Some(value) = rest.strip_prefix('>') {
        Operator::Above(number(value)?)
    } else if let Some(value) = rest.strip_prefix('<') {
        Operator::Below(number(value)?)
    } else {
        return Err(unparsable(&format!("found '{rest}', expected: in, notin, =, ==, !=, gt, lt")));
    };
    Ok(Requirement { key, operator })
}

fn label_key(key: &str) -> ApiResult<Box<str>> {
    match crate::meta::label_key_problem(key) {
        None => Ok(key.into()),
        Some(problem) => Err(unparsable(&format!("key: Invalid value: \"{key}\": {problem}"))),
    }
}

fn label_value(value: &str) -> ApiResult<Box<str>> {
    match crate::meta::label_value_problem(value) {
        None => Ok(value.into()),
        Some(problem) => Err(unparsable(&format!("values[0]: Invalid value: \"{value}\": {problem}"))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    Extracted(usize),
}

/// A parsed `fieldSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector {
    requirements: Vec<(Field, bool, Box<str>)>,
}

impl FieldSelector {
    /// `paths` are the fields that the resource's objects carry extracted.
    pub(crate) fn parse(text: &str, paths: &[FieldPath]) -> ApiResult<Self> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let invalid = || {
                ApiError::bad_request(format!(
                    "invalid field selector: {part}: expected one of key=value, key==value, key!=value"
                ))
            };
            let at = part.find(['=', '!']).ok_or_else(invalid)?;
            let (label, rest) = part.split_at(at);
            let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
                (false, value)
            } else if let Some(value) = rest.strip_prefix("==") {
                (true, value)
            } else if let Some(value) = rest.strip_prefix('=') {
                (true, value)
            } else {
                return Err(invalid());
            };
            let field = match label {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                other => Field::Extracted(
                    paths
                        .iter()
                        .position(|path| &*path.label == other)
                        .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {other}")))?,
                ),
            };
            requirements.push((field, equal, unescape(value)?));
        }
        Ok(Self { requirements })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.requirements.iter().all(|(field, equal, wanted)| {
            let value = match field {
                Field::Name => &object.key.name,
                Field::Namespace => &object.key.namespace,
                Field::Extracted(index) => match object.facts.fields.get(*index) {
                    Some(value) => value,
                    None => return !*equal,
                },
            };
            (value == wanted) == *equal
        })
    }

    /// The name that the selector pins, so that a list or watch of one object need not scan.
    pub(crate) fn name(&self) -> Option<&str> {
        self.requirements.iter().find_map(|(field, equal, value)| (*field == Field::Name && *equal).then_some(&**value))
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut escaped, mut start) = (Vec::new(), false, 0_usize);
    for (at, letter) in text.char_indices() {
        if letter == ',' && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = letter == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> ApiResult<Box<str>> {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
            _ => {
                return Err(ApiError::bad_request(format!(
                    "invalid field selector: invalid escape sequence in {value}"
                )));
            }
        }
    }
    Ok(plain.into())
}

/// Both selectors of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Selector {
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::object::{Draft, Key};
    use serde_json::json;

    fn object() -> Object {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n,1"},
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web", "rank": "3", "empty": ""}}});
        Draft::new(&value, &[FieldPath::new("spec.nodeName")]).commit(Key::new("ns", "p"), 1)
    }

    #[test]
    fn label_selectors_follow_the_operators() {
        let object = object();
        for (selector, expected) in [
            ("app=web", true),
            ("app==db", false),
            ("missing!=x", true),
            ("app in (db, web), rank>2", true),
            ("app notin (web)", false),
            ("other notin (web)", true),
            ("!other,rank<3", false),
            ("empty=", true),
            ("app", true),
            ("", true),
        ] {
            assert_eq!(LabelSelector::parse(selector).unwrap().matches(&object), expected, "{selector}");
        }
        assert!(LabelSelector::parse("a=b=c,,").is_err());
        assert!(LabelSelector::parse("app near (x)").is_err());
    }

    #[test]
    fn field_selectors_unescape_and_refuse_unknown_fields() {
        let object = object();
        let paths = [FieldPath::new("spec.nodeName")];
        assert!(FieldSelector::parse(r"spec.nodeName=n\,1,metadata.name=p", &paths).unwrap().matches(&object));
        assert!(!FieldSelector::parse("metadata.namespace!=ns", &paths).unwrap().matches(&object));
        assert_eq!(
            FieldSelector::parse("spec.owner=x", &paths).unwrap_err().message,
            "field label not supported: spec.owner"
        );
    }
}
