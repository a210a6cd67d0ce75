//! Runs one worker for each running instance that has something to do. If there are several processes, one leads at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use berth_ids::InstanceId;
use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Jobs;
use crate::store::{CHANNEL, try_lead, workspaces};

/// It looks this often without being woken: a lost notification costs at most this much.
const LOOK: Duration = Duration::from_secs(5);

struct Worker {
    nudge: Arc<Notify>,
    task: AbortHandle,
}

impl Jobs {
    /// Leads, or waits to lead, until `shutdown`.
    pub(crate) async fn run(&self, shutdown: &CancellationToken) {
        let failed = |error| tracing::warn!(%error, "automations: the database is away; will try again");
        super::again(shutdown, || self.lead(), failed).await;
    }

    async fn lead(&self) -> Result<(), sqlx::Error> {
        // The lock lives as long as this connection, which is taken out of the pool: dropping it closes it and releases the lock.
        let mut leader: PgConnection = self.pool.acquire().await?.detach();
        // A process that was killed releases the lock within milliseconds, so the next one tries often at first. It polls and does not wait
        // in the database: a statement that waits for hours would hold back the vacuum of all tables.
        let mut pause = Duration::from_millis(20);
        while !try_lead(&mut leader).await? {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        let mut workers: HashMap<InstanceId, Worker> = HashMap::new();
        // Dropped, it ends all workers.
        let mut tasks: JoinSet<InstanceId> = JoinSet::new();
        loop {
            let busy = workspaces::busy(&mut leader).await?;
            workers.retain(|instance, worker| {
                let stays = busy.iter().any(|busy| busy.instance_id == *instance);
                if !stays {
                    worker.task.abort();
                }
                stays && !worker.task.is_finished()
            });
            for busy in busy {
                if let Some(worker) = workers.get(&busy.instance_id) {
                    worker.nudge.notify_one();
                    continue;
                }
                let (jobs, nudge) = (self.clone(), Arc::new(Notify::new()));
                let nudged = Arc::clone(&nudge);
                let instance = busy.instance_id;
                let task = tasks.spawn(async move {
                    jobs.attend(&busy, &nudged).await;
                    instance
                });
                workers.insert(instance, Worker { nudge, task });
            }
            tokio::select! {
                notice = listener.recv() => {
                    drop(notice?);
                    // One look serves all that have come.
                    while listener.next_buffered().is_some() {}
                }
                Some(_) = tasks.join_next() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}
