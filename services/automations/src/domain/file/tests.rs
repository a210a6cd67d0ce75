use std::time::Duration;

use proptest::prelude::*;

use super::{Role, Trigger, parse, parse_bytes};

const FULL: &str = r#"
# The example of the documentation.
services:
  database:
    name: Database
    description: Postgres for development
    triggeredBy: [postDevcontainerStart, postEnvironmentStart]
    commands:
      start: |
        exec postgres -D /data
      ready: pg_isready
      stop: pg_ctl stop
    readinessTimeout: 1m30s
  web:
    name: "Web"
    role: editor
    dependsOn:
      - database
      - install
    commands:
      start: npm run dev
tasks:
  install:
    name: Install
    command: npm ci
    triggeredBy:
      - prebuild
      - manual
  all:
    dependsOn: [web]
    prebuildRequiresSuccess: true
"#;

#[test]
fn everything_in_a_file() {
    let file = parse(FULL).unwrap();
    let database = &file.services["database"];
    assert_eq!((database.name.as_str(), database.start.as_str()), ("Database", "exec postgres -D /data\n"));
    assert_eq!((database.ready.as_deref(), database.stop.as_deref()), (Some("pg_isready"), Some("pg_ctl stop")));
    assert_eq!(database.readiness_timeout, Some(Duration::from_secs(90)));
    assert_eq!(database.triggered_by, [Trigger::PostDevcontainerStart, Trigger::PostEnvironmentStart]);
    let web = &file.services["web"];
    assert_eq!(
        (web.role, web.depends_on.as_slice()),
        (Role::Editor, &["database".to_owned(), "install".to_owned()][..])
    );
    assert_eq!(file.tasks["all"].command, None);
    assert!(file.tasks["all"].prebuild_requires_success);
    assert_eq!(file.tasks["all"].name, "all");
    assert_eq!(file.warnings.len(), 1);
    assert_eq!(
        file.warnings[0].to_string(),
        "line 27, column 9: the trigger prebuild of \"install\" is accepted, and not fired yet"
    );
    assert_eq!(file.triggered(&[Trigger::PostEnvironmentStart]), ["database"]);
    assert!(file.triggered(&[]).is_empty());
}

#[test]
fn json_is_yaml_and_aliases_are_understood() {
    let file = parse(r#"{"tasks": {"a": {"command": "true"}}}"#).unwrap();
    assert_eq!(file.tasks["a"].command.as_deref(), Some("true"));
    let file = parse("tasks:\n  a:\n    command: &c echo hi\n  b:\n    command: *c\n").unwrap();
    assert_eq!(file.tasks["b"].command.as_deref(), Some("echo hi"));
}

#[test]
fn nothing_is_fine_and_told() {
    for text in ["", "# only a comment\n", "services:\ntasks:\n", "{}"] {
        let file = parse(text).unwrap();
        assert!(file.tasks.is_empty() && file.services.is_empty());
        assert_eq!(file.warnings.len(), 1, "{text:?}");
    }
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let error = parse(text).expect_err(text);
    let found: Vec<String> = error.0.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{text}\n{found:?}\ndoes not begin with\n{expected:?}");
    }
}

#[test]
fn refused_with_line_and_column() {
    refused("task:\n  a: {}\n", &["line 1, column 1: \"task\" is not a key of the file: there are services, tasks"]);
    refused(
        "tasks:\n  a:\n    command: x\n    cmd: y\n    env: {}\n",
        &[
            "line 4, column 5: \"cmd\" is not a key of task \"a\"",
            "line 5, column 5: \"env\" is not a key of task \"a\"",
        ],
    );
    refused(
        "services:\n  s:\n    name: S\n    commands:\n      start: x\n      restart: y\n",
        &["line 6, column 7: \"restart\" is not a key of commands"],
    );
    refused("tasks:\n  a b:\n    command: x\n", &["line 2, column 3: \"a b\" cannot be a key of tasks"]);
    refused(
        "tasks:\n  a:\n    command: x\n  a:\n    command: y\n",
        &["line 4, column 3: the key \"a\" is here for the second time"],
    );
    refused(
        "services:\n  a:\n    name: A\n    commands: {start: x}\ntasks:\n  a:\n    command: x\n",
        &["line 6, column 3: \"a\" is a task and a service"],
    );
    refused("tasks:\n  a:\n    name: A\n", &["line 2, column 3: task \"a\" has no command"]);
    refused("tasks:\n  a:\n    command: ''\n", &["line 3, column 14: command is empty"]);
    refused("tasks:\n  a:\n    command: [x]\n", &["line 3, column 14: command must be text"]);
    refused("tasks:\n  a: x\n", &["line 2, column 6: task \"a\" must be a map"]);
    refused("tasks: [a]\n", &["line 1, column 8: tasks must be a map"]);
    refused(
        "services:\n  s:\n    description: d\n",
        &["line 2, column 3: service \"s\" has no commands.start", "line 2, column 3: service \"s\" has no name"],
    );
    refused(
        "services:\n  s:\n    name: S\n    commands:\n      ready: x\n",
        &["line 4, column 5: service \"s\" has no commands.start"],
    );
    refused(
        "services:\n  s:\n    name: S\n    commands: {start: x}\n    role: boss\n",
        &["line 5, column 11: \"boss\" is not a role"],
    );
    refused(
        "services:\n  s:\n    name: S\n    commands: {start: x, ready: y}\n    readinessTimeout: soon\n",
        &["line 5, column 23: readinessTimeout must be a duration"],
    );
    refused(
        "services:\n  s:\n    name: S\n    commands: {start: x, ready: y}\n    readinessTimeout: 25h\n",
        &["line 5, column 23: readinessTimeout must be at most 24h"],
    );
    refused(
        "tasks:\n  a:\n    command: x\n    triggeredBy: [onSave]\n",
        &["line 4, column 19: \"onSave\" is not a trigger: use one of manual, post"],
    );
    refused(
        "tasks:\n  a:\n    command: x\n    triggeredBy: manual\n",
        &["line 4, column 18: triggeredBy must be a list"],
    );
    refused(
        "tasks:\n  a:\n    command: x\n    dependsOn: [b, b]\n  b:\n    command: y\n",
        &["line 4, column 20: \"b\" is in dependsOn for the second time"],
    );
    refused(
        "tasks:\n  a:\n    command: x\n    prebuildRequiresSuccess: maybe\n",
        &["line 4, column 30: prebuildRequiresSuccess must be true or false"],
    );
    refused("tasks:\n  a:\n   command: x\n  command: [\n", &["line 4, column 12: this is not YAML"]);
    refused("a: b\n---\nc: d\n", &["line 2, column 1: a second document"]);
}

#[test]
fn numbers_and_booleans_are_no_text() {
    refused(
        "tasks:\n  a:\n    name: 12\n    description: 1e3\n    command: 0x1F\n",
        &[
            "line 3, column 11: name must be text: write \"12\"",
            "line 4, column 18: description must be text",
            "line 5, column 14: command must be text",
        ],
    );
    refused(
        "services:\n  s:\n    name: true\n    commands: {start: -1.5}\n",
        &["line 3, column 11: name must be text", "line 4, column 23: commands.start must be text"],
    );
    let file = parse("tasks:\n  1:\n    name: '12'\n    description: !!str 3\n    command: false\n  2: {name: 1a, command: 7z, dependsOn: [1]}\n")
        .unwrap();
    assert_eq!((file.tasks["1"].name.as_str(), file.tasks["1"].command.as_deref()), ("12", Some("false")));
    assert_eq!(
        (file.tasks["1"].description.as_str(), file.tasks["2"].depends_on.as_slice()),
        ("3", &["1".to_owned()][..])
    );
}

#[test]
fn what_is_no_text_has_a_place() {
    let error = parse_bytes(b"tasks:\n  \xc3\xa4: \xff\n").unwrap_err();
    assert!(error.to_string().starts_with("line 2, column 6: the file is not UTF-8 text"), "{error}");
    let error = parse_bytes(b"\xff\xfet\0a\0").unwrap_err();
    assert!(error.to_string().starts_with("line 1, column 1:"), "{error}");
    let error = parse_bytes(&vec![0xff; super::MAX_FILE_BYTES + 1]).unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    assert!(parse_bytes("tasks: {a: {command: 'echo ä'}}".as_bytes()).is_ok());
}

#[test]
fn a_map_takes_in_another() {
    let file = parse(
        "tasks:\n  a: &a\n    name: A\n    command: x\n  b: &b\n    <<: *a\n    name: B\n  c:\n    description: c\n    <<: [*b, *a]\n",
    )
    .unwrap();
    let task = |key: &str| (file.tasks[key].name.clone(), file.tasks[key].command.clone());
    assert_eq!(task("b"), ("B".to_owned(), Some("x".to_owned())), "what the map says itself counts");
    assert_eq!(task("c"), ("B".to_owned(), Some("x".to_owned())), "the first of a list counts");
    refused("tasks:\n  a: {command: x, <<: y}\n", &["line 2, column 23: << takes in another map"]);
    refused("tasks:\n  a: {command: x, '<<': {}}\n", &["line 2, column 19: \"<<\" is not a key of task"]);
    let twice = "tasks:\n  a: &a {retries: 1, command: x}\n  b: {<<: *a}\n";
    refused(twice, &["line 2, column 10: \"retries\" is not", "line 2, column 10: \"retries\" is not"]);
}

#[test]
fn runs_on_is_refused_by_name() {
    refused(
        "tasks:\n  a:\n    command: x\n    runsOn:\n      docker:\n        image: node\n",
        &["line 5, column 7: runsOn.docker is not there yet"],
    );
    refused(
        "tasks:\n  a:\n    command: x\n    runsOn: {machine: {}}\n",
        &["line 4, column 14: runsOn.machine is not there yet"],
    );
    refused(
        "tasks:\n  a:\n    command: x\n    runsOn: {moon: {}}\n",
        &["line 4, column 14: \"moon\" is not a key of runsOn"],
    );
    refused("tasks:\n  a:\n    command: x\n    runsOn:\n", &["line 4, column 5: runsOn is not there yet"]);
}

#[test]
fn dependencies_that_cannot_be() {
    refused(
        "tasks:\n  a:\n    command: x\n    dependsOn: [nosuch]\n",
        &["line 4, column 17: \"a\" depends on \"nosuch\", which is neither a task nor a service"],
    );
    refused("tasks:\n  a:\n    command: x\n    dependsOn: [a]\n", &["line 4, column 17: \"a\" depends on itself"]);
    let circle = "tasks:\n  a:\n    command: x\n    dependsOn: [b]\n  b:\n    command: x\n    dependsOn:\n      - s\nservices:\n  s:\n    name: S\n    commands: {start: x}\n    dependsOn: [a]\n";
    refused(circle, &["line 13, column 17: dependsOn goes in a circle: a -> b -> s -> a"]);
}

#[test]
fn a_file_that_would_grow_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    refused(&text, &["line 5, column"]);
    refused(&"[".repeat(5000), &["line 1, column"]);
    refused(&"x".repeat(super::MAX_FILE_BYTES + 1), &["line 1, column 1: the file is larger than 256 KiB"]);
    let many: String = (0..300).map(|number| format!("  t{number}: {{command: x}}\n")).collect();
    refused(&format!("tasks:\n{many}"), &["line 202, column 3: there are more than 200"]);
}

proptest! {
    #[test]
    fn never_panics(text in "[ -~\n\t]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn never_panics_near_a_file(cut in 0_usize..800, insert in "[ -~\n]{0,12}") {
        let mut text = FULL.to_owned();
        let at = cut.min(text.len());
        text.insert_str(at, &insert);
        if let Err(refused) = parse(&text) {
            prop_assert!(!refused.0.is_empty());
            prop_assert!(refused.0.iter().all(|finding| finding.line >= 1 && finding.column >= 1));
        }
    }
}
