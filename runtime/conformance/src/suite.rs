//! Tests, their outcomes, and the run over all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::context::{Cgroups, Context};

/// What a test runs.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    Plain(fn(&Context) -> Result<()>),
    Case(fn(&Context, &str) -> Result<()>, &'static str),
}

/// One test.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    /// The sentence of the specification, or the advisory, that it proves.
    pub(crate) proves: &'static str,
    pub(crate) body: Body,
}

/// A test.
pub(crate) const fn test(name: &'static str, proves: &'static str, body: fn(&Context) -> Result<()>) -> Test {
    Test { name, proves, body: Body::Plain(body) }
}

/// One row of a table test.
pub(crate) const fn case(
    name: &'static str,
    proves: &'static str,
    body: fn(&Context, &str) -> Result<()>,
    row: &'static str,
) -> Test {
    Test { name, proves, body: Body::Case(body, row) }
}

/// The tests of one file.
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) tests: &'static [Test],
}

/// Reports that a test proves nothing on this machine.
#[derive(Debug)]
struct Skip(String);

impl std::fmt::Display for Skip {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a test that this machine cannot run.
pub(crate) fn skip(reason: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Skip(reason.into()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) test: String,
    pub(crate) outcome: Outcome,
    pub(crate) proves: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    #[serde(skip)]
    pub(crate) milliseconds: u128,
}

/// A file of results, as far as it is read again.
#[derive(Debug, Deserialize)]
pub(crate) struct Results {
    pub(crate) runtime: String,
    pub(crate) cgroups: Cgroups,
    pub(crate) options: Vec<String>,
    pub(crate) tests: Vec<Report>,
}

fn run_one(context: &Context, topic: &str, test: &Test) -> Report {
    let start = std::time::Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| match test.body {
        Body::Plain(body) => body(context),
        Body::Case(body, row) => body(context, row),
    }));
    let (outcome, detail) = match result {
        Ok(Ok(())) => (Outcome::Passed, None),
        Ok(Err(error)) if error.is::<Skip>() => (Outcome::Skipped, Some(error.to_string())),
        Ok(Err(error)) => (Outcome::Failed, Some(tidy(context, &format!("{error:#}")))),
        Err(_) => (Outcome::Failed, Some("the test itself broke down".to_owned())),
    };
    Report {
        test: format!("{topic}.{}", test.name),
        outcome,
        proves: test.proves.to_owned(),
        detail,
        milliseconds: start.elapsed().as_millis(),
    }
}

/// Removes from a text what differs from run to run.
fn tidy(context: &Context, text: &str) -> String {
    let work = context.work.to_string_lossy().into_owned();
    let mut text = text.replace(&work, "WORK");
    let prefix = format!("hc-{}-", std::process::id());
    while let Some(at) = text.find(&prefix) {
        let digits = text[at + prefix.len()..].chars().take_while(char::is_ascii_digit).count();
        text.replace_range(at..at + prefix.len() + digits, "ID");
    }
    // runc and docker stamp their lines.
    let mut kept = String::new();
    for word in text.split_inclusive(' ') {
        let stamp = word.starts_with("time=\"") || (word.len() > 20 && word.ends_with("Z ") && word.contains('T'));
        if !stamp {
            kept.push_str(word);
        }
    }
    kept.chars().take(400).collect()
}

/// Runs the tests whose full name is `wanted`, a few at a time, and calls `done` for each.
pub(crate) fn run(
    context: &Context,
    topics: &[Topic],
    wanted: &dyn Fn(&str) -> bool,
    jobs: usize,
    done: &(dyn Fn(&Report) + Sync),
) -> Vec<Report> {
    let chosen: Vec<(&str, &Test)> =
        all(topics).filter(|(topic, test)| wanted(&format!("{topic}.{}", test.name))).collect();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((topic, test)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run_one(context, topic, test);
                    done(&report);
                    if let Ok(mut reports) = reports.lock() {
                        reports.push(report);
                    }
                }
            });
        }
    });
    reports.into_inner().unwrap_or_default()
}

/// The full names of all tests, in their order.
pub(crate) fn names(topics: &[Topic]) -> Vec<String> {
    all(topics).map(|(topic, test)| format!("{topic}.{}", test.name)).collect()
}

/// Puts reports in the order of the topics.
pub(crate) fn sort(reports: &mut [Report], topics: &[Topic]) {
    let names = names(topics);
    reports.sort_by_key(|report| names.iter().position(|name| *name == report.test));
}

fn all(topics: &[Topic]) -> impl Iterator<Item = (&str, &Test)> {
    topics.iter().flat_map(|topic| topic.tests.iter().map(|test| (topic.name, test)))
}
