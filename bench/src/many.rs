//! Many starts at once.

use std::time::Instant;

use crate::figures::{Report, percentile};
use crate::server::Server;

/// Asks for `count` workspaces at the same moment; the time of each until it runs.
pub(crate) fn measure(server: &Server, count: usize, report: &mut Report) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut times = Vec::new();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    let name = format!("many-{number}");
                    let result = server.check(&["up", &server.repository, "--name", &name, "--no-shell"]);
                    (begin.elapsed(), result)
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok((time, Ok(_))) => times.push(time),
                Ok((_, Err(error))) => failures.push(format!("{error:#}")),
                Err(_) => failures.push("the thread panicked".to_owned()),
            }
        }
    });
    let list = server.json(&["list", "--phase", "Running"])?;
    let running = list.as_array().map_or(0, Vec::len);
    report.add(&format!("{count} starts at once, p95"), percentile(&mut times, 0.95) / 1000.0, 15.0, "s");
    report.tell("of them running / failed", format!("{running} / {}", failures.len()));
    if let Some(first) = failures.first() {
        report.note(format!("The first failure: {first}"));
    }
    server.delete_all()
}
