//! Stores the output of tasks and services: each running one is listened to, so that the end of its output can be stored when the workspace
//! has stopped and nobody can be asked any more.

use std::collections::BTreeMap;

use berth_ids::{ExecutionId, InstanceId};
use berth_supervisor_client::protocol::Request;
use berth_supervisor_client::{ClientError, Incoming};
use tokio::task::JoinHandle;

use super::{Jobs, WorkError};
use crate::domain::progress::Run;
use crate::store::executions;

/// The listeners of one instance. They outlive their worker, which is ended at the same moment as the workspace; each listener ends with its
/// connection to the workspace.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<ExecutionId, JoinHandle<()>>);

impl Listeners {
    /// Listens to the runs that have no listener yet.
    pub(super) fn attend(&mut self, jobs: &Jobs, instance: InstanceId, runs: &[Run]) {
        self.0.retain(|_, task| !task.is_finished());
        for run in runs.iter().filter(|run| run.run.is_some() && !run.phase.is_final()) {
            self.0.entry(run.id).or_insert_with(|| {
                let (jobs, id, unit) = (jobs.clone(), run.id, run.reference.clone());
                tokio::spawn(async move { jobs.keep_log(instance, id, &unit).await })
            });
        }
    }
}

impl Jobs {
    async fn keep_log(&self, instance: InstanceId, run: ExecutionId, unit: &str) {
        let mut tail = Tail::new(usize::try_from(self.kept_log_bytes).unwrap_or(usize::MAX));
        if let Err(error) = self.listen(instance, unit, &mut tail).await {
            let error = berth_http::problem::chain(&error);
            tracing::debug!(%instance, unit, %error, "nothing more is heard of a unit");
        }
        let kept = async {
            let mut conn = self.pool.acquire().await?;
            executions::keep_log(&mut conn, run, tail.end()).await
        };
        if let Err(error) = kept.await {
            tracing::warn!(%instance, unit, %error, "the output of a unit cannot be kept");
        }
    }

    async fn listen(&self, instance: InstanceId, unit: &str, tail: &mut Tail) -> Result<(), WorkError> {
        let mut supervisor = self.supervisors.connect(instance).await?;
        let request = Request::UnitLogs { id: unit.to_owned(), follow: true, tail_bytes: Some(self.kept_log_bytes) };
        supervisor.request(&request).await?;
        loop {
            match supervisor.receive().await {
                Ok(Some(Incoming::Bytes(_, bytes))) => tail.push(&bytes),
                Ok(Some(Incoming::Event(_)) | None) | Err(ClientError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The end of a stream.
#[derive(Debug)]
struct Tail {
    limit: usize,
    bytes: Vec<u8>,
}

impl Tail {
    const fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Truncated in large pieces, so that every byte is moved at most once.
        if self.bytes.len() > self.limit.saturating_mul(2) {
            let surplus = self.bytes.len() - self.limit;
            self.bytes.drain(..surplus);
        }
    }

    fn end(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(self.limit)..]
    }
}

#[cfg(test)]
mod tests {
    use super::Tail;

    #[test]
    fn the_end_is_kept() {
        let mut tail = Tail::new(5);
        assert_eq!(tail.end(), b"");
        for number in 0..100_u8 {
            tail.push(&[number, number]);
            assert!(tail.bytes.len() <= 12);
        }
        assert_eq!(tail.end(), [97, 98, 98, 99, 99]);
    }
}
