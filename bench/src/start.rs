//! A start from the exec of `berth up` to the prompt on its terminal, and stop-then-start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_testkit::OnTerminal;

use crate::figures::{Report, percentile};
use crate::server::Server;

/// Starts `count` new workspaces one after the other, each to its prompt.
pub(crate) fn measure(server: &Server, count: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let mut steps: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for number in 0..count {
        let name = format!("bench-{number}");
        let command = server.berth(&["up", &server.repository, "--name", &name]);
        let mut terminal = OnTerminal::spawn(&command)?;
        let prompt = format!("{name}:/workspace/small");
        times.push(terminal.until("prompt", |seen| {
            seen.rfind(&prompt).is_some_and(|at| seen[at..].contains("# ") || seen[at..].contains("$ "))
        })?);
        terminal.send("exit\n")?;
        terminal.finish()?;
        let workspace = server.json(&["show", &name])?;
        for step in workspace["receipt"]["steps"].as_array().into_iter().flatten() {
            let (Some(step_name), Some(micros)) = (step["name"].as_str(), step["duration_us"].as_u64()) else {
                continue;
            };
            if !order.iter().any(|known| known == step_name) {
                order.push(step_name.to_owned());
            }
            steps.entry(step_name.to_owned()).or_default().push(Duration::from_micros(micros));
        }
        server.check(&["delete", &name])?;
    }
    report.add(&format!("`berth up` to the prompt, p50 of {count}"), percentile(&mut times, 0.50), 150.0, "ms");
    report.add(&format!("`berth up` to the prompt, p95 of {count}"), percentile(&mut times, 0.95), 400.0, "ms");
    for step in order {
        if let Some(times) = steps.get_mut(&step) {
            let (p50, p95) = (percentile(times, 0.50), percentile(times, 0.95));
            report.tell(&format!("its step {step}, p50 / p95"), format!("{p50:.1} / {p95:.1} ms"));
        }
    }
    Ok(())
}

/// Stops and starts one workspace `count` times.
pub(crate) fn restart(server: &Server, count: usize, report: &mut Report) -> anyhow::Result<()> {
    let name = "bench-restart";
    server.check(&["up", &server.repository, "--name", name])?;
    server.check(&["exec", name, "--", "sh", "-c", "echo kept > kept.txt"])?;
    let (mut both, mut stops, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let begin = Instant::now();
        server.check(&["stop", name])?;
        let stopped = Instant::now();
        server.check(&["start", name])?;
        both.push(begin.elapsed());
        stops.push(stopped.duration_since(begin));
        starts.push(stopped.elapsed());
    }
    let kept = server.check(&["exec", name, "--", "cat", "kept.txt"])?;
    anyhow::ensure!(kept.stdout == b"kept\n", "a file was lost over {count} restarts");
    server.check(&["delete", name])?;
    report.add(&format!("stop, then start, p50 of {count}"), percentile(&mut both, 0.50), 300.0, "ms");
    report.tell("stop, then start, p95", format!("{:.1} ms", percentile(&mut both, 0.95)));
    report.tell(
        "stop alone / start alone, p50",
        format!("{:.1} / {:.1} ms", percentile(&mut stops, 0.5), percentile(&mut starts, 0.5)),
    );
    Ok(())
}
