//! Somebody at another machine: an HTTP client and the `berth` program, with the installation's public address and nothing else.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{program, told};

/// A user.
pub(crate) struct User {
    /// The public address.
    pub(crate) url: String,
    home: tempfile::TempDir,
}

impl User {
    pub(crate) fn of(url: &str) -> Self {
        Self { url: url.to_owned(), home: tempfile::tempdir().unwrap() }
    }

    /// An HTTP request: status, headers, body.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[&str], body: &Value) -> (u16, String, Value) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--max-time", "30", "--request", method]);
        for header in headers {
            command.args(["--header", header]);
        }
        if !body.is_null() {
            command.args(["--header", "content-type: application/json", "--data", &body.to_string()]);
        }
        let output = command.arg(format!("{}{path}", self.url)).output().unwrap();
        assert!(output.status.success(), "{method} {path}: {}", told(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Makes the first administrator with the one-time link; the session's cookie as a header.
    pub(crate) fn set_up(&self, link: &str) -> String {
        let (page, token) = link.split_once('#').unwrap();
        assert_eq!(page, format!("{}/setup", self.url));
        let admin =
            json!({ "token": token, "name": "Ada", "email": "ada@example.com", "password": "correct horse battery" });
        let (status, head, body) = self.request("POST", "/api/v1/setup", &[], &admin);
        assert_eq!(status, 201, "{body}");
        session_cookie(&head)
    }

    /// The same by `berth setup`, which signs this user's terminal in; what it says of the administrator.
    pub(crate) fn set_up_by_terminal(&self, link: &str) -> Value {
        let args = ["setup", link, "--name", "Ada", "--email", "ada@example.com", "--output", "json"];
        serde_json::from_slice(&self.run_with(&args, "correct horse battery\n").stdout).unwrap()
    }

    /// The administrator signs in; the session's cookie as a header.
    pub(crate) fn session(&self) -> String {
        let login = json!({ "email": "ada@example.com", "password": "correct horse battery" });
        let (status, head, body) = self.request("POST", "/api/v1/sessions", &[], &login);
        assert_eq!(status, 201, "{body}");
        session_cookie(&head)
    }

    /// A personal access token, made in a browser's session.
    pub(crate) fn token(&self, cookie: &str) -> String {
        let origin = format!("origin: {}", self.url);
        let (status, _, body) =
            self.request("POST", "/api/v1/tokens", &[cookie, &origin], &json!({ "name": "laptop" }));
        assert_eq!(status, 201, "{body}");
        body["secret"].as_str().unwrap().to_owned()
    }

    /// `berth login`.
    pub(crate) fn login(&self, token: &str) {
        self.run_with(&["login", &self.url], token);
    }

    /// Runs a command that must succeed with this on its standard input.
    fn run_with(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", told(&output));
        output
    }

    /// `berth …`, with this user's sign-in and nothing of the environment that could lead elsewhere.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("berth").unwrap());
        command.args(args).stdin(Stdio::null()).env("HOME", self.home.path()).env("NO_COLOR", "1");
        for name in ["BERTH_HOME", "BERTH_SERVER", "BERTH_TOKEN", "BERTH_CA_CERT", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that must succeed wrote, trimmed.
    pub(crate) fn berth(&self, args: &[&str]) -> String {
        super::ok(&mut self.command(args)).trim().to_owned()
    }

    /// The JSON of a command that must succeed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.berth(&[&["--output", "json"], args].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("berth {args:?}: {error}: {text}"))
    }

    /// A file of this user.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

/// The cookie that a session began with, as a header.
fn session_cookie(head: &str) -> String {
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    format!("cookie: {}", cookie.split(';').next().unwrap())
}
