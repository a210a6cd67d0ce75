//! Stopping an instance: ask the supervisor, then kill the container, then wait for the kernel.

use std::time::Duration;

use berth_http::problem::chain;
use berth_sandbox::monitor::Outcome;

use super::node::{Instance, Node};
use super::record::Ended;

/// After the grace period: time for the supervisor itself, and for the kernel.
const MARGIN: Duration = Duration::from_secs(3);
const KERNEL: Duration = Duration::from_secs(20);

impl Node {
    /// Stops an instance and waits for its end; returns at once if it has ended. `None` if the node does not know it.
    pub async fn stop(&self, id: &str, grace: Duration) -> Option<Ended> {
        let instance = self.instance(id)?;
        if let Some(ended) = instance.ended() {
            return Some(ended);
        }
        if ask(&instance, grace).await
            && let Ok(ended) = tokio::time::timeout(grace + MARGIN, instance.wait_ended()).await
        {
            return Some(ended);
        }
        // The supervisor does not answer or does not keep its word. hull kills the whole cgroup.
        tracing::warn!(instance = id, "a workspace did not stop by itself and is killed");
        loop {
            if let Err(error) = self.inner.runtime.kill(id, "KILL").await {
                tracing::warn!(instance = id, error = chain(&error), "hull cannot kill a workspace");
            }
            if let Ok(ended) = tokio::time::timeout(KERNEL, instance.wait_ended()).await {
                return Some(ended);
            }
            // The kernel waits for the host's disk: all that can be done is to wait with it.
            tracing::error!(instance = id, "a killed workspace does not end: the host's disk may hang");
            super::leftovers::remove_cgroups(self.inner.home.root(), id);
        }
    }
}

/// Asks the supervisor; whether it took it.
async fn ask(instance: &Instance, grace: Duration) -> bool {
    let asked = async {
        let mut client = crate::supervisor::client(&instance.folder).await?;
        client.end_workspace(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)).await
    };
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "a workspace's supervisor was asked to stop and said no");
            false
        }
        Err(_) => false,
    }
}

/// The end in words for the user.
#[must_use]
pub fn explain(ended: &Ended) -> String {
    if ended.node_restarted {
        return "the machine was restarted".to_owned();
    }
    let memory = if ended.exit.oom_killed { "; the workspace ran out of memory" } else { "" };
    match &ended.exit.outcome {
        Outcome::Code(0) => format!("its main process ended{memory}"),
        Outcome::Code(code) => format!("its main process ended with status {code}{memory}"),
        Outcome::Signal(signal) => format!("its main process was killed by signal {signal}{memory}"),
        Outcome::NotStarted(failure) => failure.to_string(),
        Outcome::Unknown => "its end was not seen, because its monitor was killed".to_owned(),
    }
}
