//! Commands that need no server, and what every command has: help with an example, JSON errors, exit statuses.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Ran, berth};

fn run(args: &[&str]) -> Ran {
    Ran::of(&mut berth(Path::new("/nonexistent"), args))
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

fn assert_help(path: &[String], seen: &mut usize) {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let ran = run(&args);
    assert_eq!(ran.status, 0, "{path:?}: {ran}");
    let below = commands(&ran.stdout);
    if !path.is_empty() {
        let example = format!("berth {}", path.join(" "));
        let shown = ran.stdout.lines().any(|line| {
            let line = line.strip_prefix("Example: ").or_else(|| line.strip_prefix("  "));
            line.is_some_and(|line| line.starts_with(&example))
        });
        assert!(shown, "the help of {path:?} shows no example of its use: {ran}");
        *seen += 1;
    }
    for name in below {
        assert_help(&[path, &[name]].concat(), seen);
    }
}

#[test]
fn the_help_of_every_command_shows_an_example() {
    let mut seen = 0;
    assert_help(&[], &mut seen);
    assert!(seen > 40, "only {seen} commands were found");
}

#[test]
fn help_is_a_command() {
    for (command, option) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "up"], &["up", "--help"]),
        (&["help", "server", "stop"], &["server", "stop", "--help"]),
        (&["token", "help", "create"], &["token", "create", "--help"]),
    ] {
        let (by_command, by_option) = (run(command), run(option));
        assert!(by_command.status == 0 && by_command.stdout == by_option.stdout, "{command:?}: {by_command}");
    }
}

#[test]
fn completions_are_scripts() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef berth"), ("fish", "complete -c berth")] {
        let script = run(&["completion", shell]);
        assert!(script.status == 0 && script.stdout.contains(word), "{shell}: {script}");
    }
}

#[test]
fn shells_complete_commands_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.path().join(shell);
        std::fs::write(&script, run(&["completion", shell]).stdout).unwrap();
        for (line, word) in [("berth doc", "doctor"), ("berth list --outp", "--output")] {
            let Some(said) = crate::shells::complete(shell, Path::new(env!("CARGO_BIN_EXE_berth")), &script, line)
            else {
                eprintln!("skipped: {shell} is not installed");
                break;
            };
            // fish explains its words, zsh tells the whole line.
            let completed = said.split(['\t', ' ']).any(|said| said.trim_end_matches('=') == word);
            assert!(completed, "{shell}: {line:?} becomes {said:?}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_told_in_the_form_that_was_asked_for() {
    let ran = run(&["lst"]);
    assert!(ran.status == 2 && ran.stderr.contains("list"), "{ran}");
    let ran = run(&["lst", "--output", "json"]);
    assert_eq!((ran.status, &ran.error()["code"]), (2, &Value::from("usage")), "{ran}");
    // A command's own arguments are none of ours.
    let ran = run(&["exec", "--bad", "--", "tool", "--output", "json"]);
    assert!(ran.status == 2 && ran.stderr.starts_with("error:"), "{ran}");
    assert!(run(&["--version"]).stdout.starts_with("berth "));
}

#[test]
fn without_a_server_commands_say_how_to_start_one() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["list"][..], &["show", "x"], &["server", "status"], &["exec", "x", "--", "true"], &["logs", "x"]] {
        let ran = Ran::of(&mut berth(home.path(), args));
        assert!(ran.status == 6 && ran.stderr.contains("berth server --detach"), "{args:?}: {ran}");
        let ran = Ran::of(&mut berth(home.path(), &[&["-o", "json"], args].concat()));
        assert_eq!((ran.status, &ran.error()["exit_status"]), (6, &Value::from(6)), "{args:?}: {ran}");
    }
    let ran = Ran::of(&mut berth(home.path(), &["server", "stop", "-o", "json"]));
    assert_eq!((ran.status, &ran.json()["stopped"]), (0, &Value::Null), "{ran}");
    let ran = Ran::of(&mut berth(home.path(), &["kubeconfig"]));
    assert!(ran.status == 1 && ran.stderr.contains("first start"), "{ran}");
    // A server of another machine that is away.
    let ran = run(&["list", "--server", "http://127.0.0.1:9"]);
    assert!(ran.status == 6 && ran.stderr.contains("cannot be reached"), "{ran}");
    let ran = run(&["list", "--server", "ftp://x"]);
    assert!(ran.status == 1 && ran.stderr.contains("https://host"), "{ran}");
}

#[test]
fn contexts_are_shown() {
    let fields = ["provider", "host", "owner", "name", "type", "ref", "path", "line", "number"];
    for (url, expected) in [
        (
            "https://github.com/rust-lang/cargo/pull/7",
            json!(["github", "github.com", "rust-lang", "cargo", "pull_request", null, null, null, 7]),
        ),
        (
            "https://gitlab.com/g/sub/p/-/blob/main/a%20b/c%2520d.rs#L10",
            json!(["gitlab", "gitlab.com", "g/sub", "p", "file", "main", "a b/c%20d.rs", 10, null]),
        ),
        (
            "git@Git.Example.com:~u/c.git",
            json!(["git", "git.example.com", "~u", "c", "repository", null, null, null, null]),
        ),
    ] {
        let shown = run(&["context", "parse", url, "-o", "json"]).json();
        // Every field is there, also what the URL leaves open.
        let values: Vec<&Value> =
            fields.iter().map(|field| shown.get(field).unwrap_or_else(|| panic!("no {field}: {shown}"))).collect();
        assert_eq!(json!(values), expected, "{url}");
    }
    let text = run(&["context", "parse", "--host", "git.example.com/git=gitea", "https://git.example.com/git/a/b"]);
    assert!(text.status == 0 && text.stdout.contains("gitea"), "{text}");
    // As a server with this configuration would.
    let home = tempfile::tempdir().unwrap();
    let settings = "[scm]\nallow_private_hosts = [\"127.0.0.1:7171\"]\nhosts = { \"git.lan\" = \"gitlab\" }\n";
    std::fs::write(home.path().join("berth.toml"), settings).unwrap();
    let parse = |url| run(&["context", "parse", "--home", home.path().to_str().unwrap(), "-o", "json", url]);
    assert_eq!(parse("http://127.0.0.1:7171/a/b").json()["provider"], "git");
    assert_eq!(parse("https://git.lan/a/b/-/merge_requests/3").json()["provider"], "gitlab");
    assert_eq!(parse("http://127.0.0.1:7172/a/b").status, 1);
    for url in ["https://me:secret@github.com/a/b", "--upload-pack=x", "https://github.com/a/b\nc", "file:///etc", "x"]
    {
        let ran = run(&["context", "parse", "-o", "json", "--", url]);
        assert!(ran.status == 1 && !ran.stderr.contains("secret"), "{url:?}: {ran}");
        assert_eq!(ran.error()["exit_status"], 1);
    }
    let flag = run(&["context", "parse", "--host", "https://git.lan=gitea", "https://git.lan/a/b", "-o", "json"]);
    let said = flag.error()["message"].as_str().unwrap().to_owned();
    assert!(flag.status == 2 && said.matches("is not a port").count() == 1, "{flag}");
}

#[test]
fn arguments_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let argument = std::ffi::OsStr::from_bytes(b"https://github.com/o/\xff");
    let ran = Ran::of(berth(Path::new("/nonexistent"), &["-o", "json", "context", "parse"]).arg(argument));
    assert_eq!((ran.status, &ran.error()["exit_status"]), (2, &2.into()), "{ran}");
}

#[test]
fn automations_files_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("automations.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "tasks:\n  a:\n    command: make\n").unwrap();
    let ran = run(&["automations", "validate", path]);
    assert!(ran.status == 0 && ran.stdout.contains("1 task, "), "{ran}");
    std::fs::write(&file, "tasks:\n  a:\n    comand: make\n").unwrap();
    let ran = run(&["automations", "validate", path]);
    assert!(ran.status == 1 && ran.stdout.contains(&format!("{path}:3:")), "{ran}");
    let ran = run(&["automations", "validate", path, "-o", "json"]);
    assert_eq!((ran.status, &ran.json()["valid"]), (1, &false.into()));
    assert!(ran.json()["errors"].as_array().unwrap().iter().any(|error| error["line"] == 3), "{ran}");
    let ran = run(&["automations", "validate", "/nonexistent/file"]);
    assert!(ran.status == 1 && ran.stderr.contains("/nonexistent/file"), "{ran}");
}

#[test]
fn configurations_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("berth.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[server]\nlisten = \"127.0.0.1:7000\"\n").unwrap();
    let ran = run(&["check-config", path]);
    assert!(ran.status == 0 && ran.stdout.contains("valid"), "{ran}");
    let holds = run(&["check-config", path, "-o", "json"]).json();
    assert_eq!(holds["server"]["listen"], "127.0.0.1:7000");
    assert_eq!(holds["api"]["public_url"], "http://127.0.0.1:7000", "what follows from other settings is what holds");
    for (text, part) in [
        ("[server]\nlisten = \"0.0.0.0:443\"\n", "--tls-cert"),
        ("[server]\nlisten = \"x\"\n", "server.listen"),
        ("[server]\nlisten = \"0.0.0.0:443\"\ntls_cert = \"c.pem\"\n", "belong together"),
        ("[server]\ntls_cert = \"/nonexistent/c.pem\"\ntls_key = \"/nonexistent/k.pem\"\n", "/nonexistent/c.pem"),
        ("[server]\nlistn = \"127.0.0.1:7000\"\n", "listn"),
        ("[kubernetes]\nlisten = \"127.0.0.1:7070\"\n", "different ports"),
        ("[node]\nsubnets = \"10.0.0.0/8\"\n", "10.0.0.0/8"),
        ("not toml", "berth.toml"),
    ] {
        std::fs::write(&file, text).unwrap();
        let ran = run(&["check-config", path, "-o", "json"]);
        assert_eq!(ran.status, 1, "{text}: {ran}");
        let message = ran.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{text}: {message}");
    }
    let ran = run(&["check-config", "/nonexistent/berth.toml"]);
    assert!(ran.status == 1 && ran.stderr.contains("/nonexistent/berth.toml"), "{ran}");
}

#[test]
fn the_doctor_looks_at_everything() {
    let home = tempfile::tempdir().unwrap();
    let ran = Ran::of(&mut berth(home.path(), &["doctor", "--output", "json"]));
    let checks = ran.json();
    let checks = checks.as_array().unwrap();
    let all_ok = checks.iter().all(|check| check["ok"] == true);
    assert_eq!(ran.status, i32::from(!all_ok), "{ran}");
    for name in ["kernel", "cgroups", "postgres", "hull", "nft", "disk space"] {
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {ran}"));
        assert!(check["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{check}");
    }
}

#[test]
fn a_home_that_is_too_long_for_sockets_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("x".repeat(90));
    let ran = Ran::of(&mut berth(&home, &["server", "--detach"]));
    assert!(ran.status == 1 && ran.stderr.contains("choose a shorter one with --home"), "{ran}");
    assert!(!home.exists(), "nothing was made");
}

#[test]
fn certificates_that_are_none_are_told() {
    let home = tempfile::tempdir().unwrap();
    let (certificate, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    std::fs::write(&certificate, "junk").unwrap();
    std::fs::write(&key, "junk").unwrap();
    let args = ["server", "--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let ran = Ran::of(&mut berth(home.path(), &args));
    assert!(ran.status == 1 && ran.stderr.contains("cert.pem holds no certificate"), "{ran}");
}

#[test]
fn what_runs_in_workspaces_and_makes_them_is_static() {
    for name in ["berth-init", "hull"] {
        let path = crate::support::bin().join(name);
        if !path.ends_with(format!("release/{name}")) || !path.is_file() {
            eprintln!("skipped: no {name} as `make build` makes it");
            continue;
        }
        let program = std::fs::read(&path).unwrap();
        let number = |at: usize, bytes: usize| {
            program[at..at + bytes].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
        };
        // The program headers of ELF for 64 bits; the third kind names an interpreter, the dynamic linker.
        let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        assert!(program.starts_with(b"\x7fELF") && count > 0, "{name} is no program");
        assert!((0..count).all(|header| number(start + header * size, 4) != 3), "{name} needs a dynamic linker");
    }
}
