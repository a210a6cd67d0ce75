//! Which property of a JSON text is at a position: the parser's errors have line and column alone.

/// The property that an error is about, below `parent`; empty for the whole text.
pub(super) fn of_error(json: &[u8], error: &serde_json::Error, parent: &str) -> String {
    let lines = json.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let before: usize = lines.map(<[u8]>::len).sum();
    let read = json.get(..before.saturating_add(error.column())).unwrap_or(json);
    // The last byte that was read ends the value in question, so it is not counted. A comma is what comes before one.
    let end = if matches!(read, [.., b',']) { read.len() } else { read.len().saturating_sub(1) };
    let mut open = walk(read.get(..end).unwrap_or(read));
    if read.ends_with(b"}") {
        // The object lacks something.
        closed(&mut open);
    }
    let mut path = parent.to_owned();
    for step in open {
        match step {
            Step::Key(Some(key)) if path.is_empty() => path = key,
            Step::Key(Some(key)) if key.contains('.') => path.push_str(&format!("[{key}]")),
            Step::Key(Some(key)) => path.push_str(&format!(".{key}")),
            Step::Key(None) => {}
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Where one is in an object (behind a key and before the end of its value, or not) or in a list.
enum Step {
    Key(Option<String>),
    Index(usize),
}

/// The objects and lists that are open at the end of the text. What cannot be JSON ends the walk: the parser went no further either.
fn walk(text: &[u8]) -> Vec<Step> {
    let mut open: Vec<Step> = Vec::new();
    let mut last: Option<String> = None;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' => open.push(Step::Key(None)),
            b'[' => open.push(Step::Index(0)),
            b'}' | b']' => {
                open.pop();
                closed(&mut open);
            }
            b'"' => {
                let Some((string, after)) = string(rest) else { break };
                rest = after;
                match open.last() {
                    Some(Step::Key(None)) => last = Some(string),
                    _ => closed(&mut open),
                }
            }
            b':' => {
                if let Some(Step::Key(key)) = open.last_mut() {
                    *key = last.take();
                }
            }
            b',' => match open.last_mut() {
                Some(Step::Key(key)) => *key = None,
                Some(Step::Index(index)) => *index = index.saturating_add(1),
                None => {}
            },
            _ => {}
        }
    }
    open
}

/// A value has ended: if it was a property's, the next key is awaited.
fn closed(open: &mut [Step]) {
    if let Some(Step::Key(key)) = open.last_mut() {
        *key = None;
    }
}

/// The text of a string, and what follows it.
fn string(text: &[u8]) -> Option<(String, &[u8])> {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    let (string, after) = text.split_at(end);
    Some((String::from_utf8_lossy(string).into_owned(), after.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::super::{Process, Spec, from_slice};
    use super::of_error;

    fn place(text: &str) -> String {
        of_error(text.as_bytes(), &from_slice::<Spec>(text.as_bytes()).unwrap_err(), "")
    }

    #[test]
    fn an_error_names_the_property() {
        let seccomp = |rules: &str| {
            format!(r#"{{"linux": {{"seccomp": {{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rules}]}}}}}}"#)
        };
        let rule = r#"{"names": ["a", "b\\"], "action": "SCMP_ACT_ERRNO"}"#;
        for (text, expected) in [
            (
                seccomp(&format!(r#"{rule}, {rule}, {{"names": ["x"], "action": "NO"}}"#)),
                "linux.seccomp.syscalls[2].action",
            ),
            (seccomp(&format!("{rule}, {{\n\"names\": [\"x\"]}}")), "linux.seccomp.syscalls[1]"),
            (seccomp(r#"{"names": ["x"], "errnoRet": 1}"#), "linux.seccomp.syscalls[0]"),
            (seccomp(&format!("{rule}, []")), "linux.seccomp.syscalls[1]"),
            (seccomp(&format!("{rule},[]")), "linux.seccomp.syscalls[1]"),
            (r#"{"process": {"terminal": true, "user": {"uid": -1}}}"#.to_owned(), "process.user.uid"),
            (r#"{"process": {"user": {"additionalGids": [1, 2, "3"]}}}"#.to_owned(), "process.user.additionalGids[2]"),
            (r#"{"linux": {"sysctl": {"a": "1", "net.core.x": 1}}}"#.to_owned(), "linux.sysctl[net.core.x]"),
            (r#"{"root": {"path": "x"}, "process": []}"#.to_owned(), "process"),
            (r#"{"mounts": [{"destination": "/a"}, {"destination": 5}]}"#.to_owned(), "mounts[1].destination"),
            ("{\n  \"hostname\": \"a\",\n  \"linux\": {\n    \"devices\": 7\n  }\n}".to_owned(), "linux.devices"),
            ("[]".to_owned(), ""),
            (String::new(), ""),
        ] {
            assert_eq!(place(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_read_may_be_a_part() {
        let text = br#"{"rlimits": [{"type": "RLIMIT_CORE", "hard": 1, "soft": "x"}]}"#;
        assert_eq!(of_error(text, &from_slice::<Process>(text).unwrap_err(), "process"), "process.rlimits[0].soft");
    }
}
