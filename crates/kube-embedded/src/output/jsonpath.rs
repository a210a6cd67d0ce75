//! The part of kubectl's JSONPath that printer columns use: members, indexes, `[*]` and filters on equality.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Member(String),
    Index(i64),
    All,
    /// `[?(@.type=="Ready")]`
    Filter(Vec<String>, bool, Value),
}

/// A parsed path. One that cannot be parsed finds nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

impl JsonPath {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        rest = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest);
        rest = rest.strip_prefix('$').unwrap_or(rest);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(after[..end].trim())?);
                rest = &after[end + 1..];
            } else {
                rest = rest.strip_prefix('.').unwrap_or(rest);
                if rest.is_empty() {
                    break;
                }
                let (name, after) = member(rest);
                if name == "*" {
                    steps.push(Step::All);
                } else if !name.is_empty() {
                    steps.push(Step::Member(name));
                } else if !after.starts_with('[') {
                    return None;
                }
                rest = after;
            }
        }
        Some(Self(steps))
    }

    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                match step {
                    Step::Member(name) => next.extend(value.get(name)),
                    Step::Index(index) => {
                        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                        let at = if *index < 0 { i64::try_from(items.len()).unwrap_or(0) + index } else { *index };
                        next.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
                    }
                    Step::All => match value {
                        Value::Array(items) => next.extend(items),
                        Value::Object(members) => next.extend(members.values()),
                        _ => {}
                    },
                    Step::Filter(path, equal, wanted) => {
                        for item in value.as_array().into_iter().flatten() {
                            let found = path.iter().try_fold(item, |at, name| at.get(name));
                            if found.is_some_and(|found| (found == wanted) == *equal) {
                                next.push(item);
                            }
                        }
                    }
                }
            }
            found = next;
        }
        found
    }
}

fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0_usize);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A member's name up to the next `.` or `[`; a backslash keeps the letter after it.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            _ => name.push(letter),
        }
    }
    (name, "")
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Member(name));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        let (equal, at) = match (filter.find("=="), filter.find("!=")) {
            (Some(at), None) => (true, at),
            (None, Some(at)) => (false, at),
            _ => return None,
        };
        let path = filter[..at].trim().strip_prefix("@.")?;
        let wanted = filter[at + 2..].trim();
        let wanted = quoted(wanted).map(Value::from).or_else(|| serde_json::from_str(wanted).ok())?;
        return Some(Step::Filter(path.split('.').map(str::to_owned).collect(), equal, wanted));
    }
    text.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Some(inner.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns_are_found() {
        let object = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"}]},
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}}, "spec": {"list": [1, 2, 3]}});
        for (path, expected) in [
            (r#".status.conditions[?(@.type=="Ready")].status"#, vec![json!("True")]),
            (r".metadata.labels.app\.kubernetes\.io/name", vec![json!("web")]),
            (".metadata.labels['app.kubernetes.io/name']", vec![json!("web")]),
            (".spec.list[-1]", vec![json!(3)]),
            ("{.spec.list[*]}", vec![json!(1), json!(2), json!(3)]),
            (".spec.none", vec![]),
        ] {
            let found: Vec<Value> = JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(found, expected, "{path}");
        }
    }
}
