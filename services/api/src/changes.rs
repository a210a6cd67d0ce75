//! Change notifications, within a process and between processes: which workspaces changed, and whose credentials must be looked up anew.
//!
//! A subscriber is told *that* something changed and reads the current state itself, so it can see changes neither out of order nor too
//! early. Within the process notifications go through a broadcast channel, after the commit; other processes get them by `NOTIFY`.
//!
//! Changes of rights are notified in their own transaction. Changes of workspaces are notified by a task, after their commit and many at
//! once: a transaction that notifies holds a lock on the whole database until its commit is on disk, so with a notification in each of them
//! every write would wait for a disk sync of its own. If a process dies before it has notified, then it, or the one in its place, makes all
//! others read everything anew when it starts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_clock::Entropy;
use berth_ids::{UserId, WorkspaceId};
use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::store::StoreError;

const CHANNEL: &str = "berth_api";
/// A subscriber that falls further behind than this reads everything anew.
const BACKLOG: usize = 4096;
/// Other processes are notified at most this often.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(5);

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This workspace, or its run.
    Workspace(WorkspaceId),
    /// Notifications may have been missed: read everything anew.
    Resync,
}

/// Sends and receives news.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    sender: broadcast::Sender<Change>,
    pending: Arc<Pending>,
    /// Distinguishes this process's notifications from those of others.
    origin: String,
}

/// Changed workspaces that other processes have not been told of.
#[derive(Debug, Default)]
struct Pending {
    workspaces: Mutex<HashSet<WorkspaceId>>,
    added: Notify,
}

impl Pending {
    fn add(&self, workspaces: impl IntoIterator<Item = WorkspaceId>) {
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).extend(workspaces);
        self.added.notify_one();
    }

    fn take(&self) -> HashSet<WorkspaceId> {
        std::mem::take(&mut *self.workspaces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A notification of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notification {
    Workspace(WorkspaceId),
    User(UserId),
    /// The process has started; what its predecessor had not yet sent is lost.
    Started,
}

async fn notify(pool: &PgPool, payloads: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload")
        .bind(CHANNEL)
        .bind(payloads)
        .execute(pool)
        .await?;
    Ok(())
}

fn parse(payload: &str, own: &str) -> Option<Notification> {
    let mut words = payload.split(' ');
    let (origin, kind, id) = (words.next()?, words.next()?, words.next());
    if origin == own {
        return None;
    }
    match (kind, id) {
        ("workspace", Some(id)) => id.parse().ok().map(Notification::Workspace),
        ("user", Some(id)) => id.parse().ok().map(Notification::User),
        ("beginning", None) => Some(Notification::Started),
        _ => None,
    }
}

impl Changes {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0_u8; 8];
        entropy.fill(&mut bytes);
        let origin = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { sender: broadcast::Sender::new(BACKLOG), pending: Arc::default(), origin }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }

    /// Notifies this process at once and the others soon. To be called after the commit.
    pub(crate) fn publish(&self, workspace: WorkspaceId) {
        self.publish_here(workspace);
        self.pending.add([workspace]);
    }

    fn publish_here(&self, workspace: WorkspaceId) {
        // No subscriber is no error.
        let _ = self.sender.send(Change::Workspace(workspace));
    }

    /// Notifies other processes, in the caller's transaction, that the rights or credentials of a user changed.
    pub(crate) async fn notify_user(&self, conn: &mut PgConnection, user: UserId) -> Result<(), StoreError> {
        let payload = format!("{} user {user}", self.origin);
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(conn).await?;
        Ok(())
    }

    /// Notifies other processes of changed workspaces until `shutdown`, and then of those that are left.
    pub(crate) async fn tell(&self, pool: &PgPool, shutdown: CancellationToken) {
        let mut payloads = vec![format!("{} beginning", self.origin)];
        let mut pause = NOTIFY_INTERVAL;
        loop {
            let last = shutdown.is_cancelled();
            payloads.extend(self.pending.take().iter().map(|id| format!("{} workspace {id}", self.origin)));
            match notify(pool, &payloads).await {
                Ok(()) => {
                    payloads.clear();
                    pause = NOTIFY_INTERVAL;
                }
                Err(error) => {
                    tracing::warn!(%error, "other processes could not be told of changes; trying again");
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
            if last {
                return;
            }
            let next = async {
                if payloads.is_empty() {
                    self.pending.added.notified().await;
                }
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = next => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Forwards notifications of other processes to this one, until `shutdown`.
    pub(crate) async fn listen(
        &self,
        pool: &PgPool,
        forget_user: impl Fn(Option<UserId>),
        shutdown: CancellationToken,
    ) {
        let mut pause = Duration::from_millis(100);
        while !shutdown.is_cancelled() {
            let result = tokio::select! {
                result = self.follow(pool, &forget_user, &mut pause) => result,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the connection for notifications was lost; connecting again");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn follow(
        &self,
        pool: &PgPool,
        forget_user: &impl Fn(Option<UserId>),
        pause: &mut Duration,
    ) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        *pause = Duration::from_millis(100);
        // Whatever was said while nobody listened.
        let _ = self.sender.send(Change::Resync);
        forget_user(None);
        // `try_recv` returns `None` when the connection broke: notifications may have been missed, and the caller starts over.
        while let Some(notification) = listener.try_recv().await? {
            match parse(notification.payload(), &self.origin) {
                Some(Notification::Workspace(id)) => self.publish_here(id),
                Some(Notification::User(id)) => forget_user(Some(id)),
                Some(Notification::Started) => {
                    let _ = self.sender.send(Change::Resync);
                }
                None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_clock::{SystemClock, SystemEntropy};

    #[test]
    fn own_notices_are_left_out_and_foreign_text_is_ignored() {
        let id = WorkspaceId::new(&SystemClock, &SystemEntropy);
        assert_eq!(parse(&format!("b workspace {id}"), "a"), Some(Notification::Workspace(id)));
        assert_eq!(parse(&format!("a workspace {id}"), "a"), None);
        assert_eq!(parse("b beginning", "a"), Some(Notification::Started));
        assert_eq!(parse("b workspace x", "a"), None);
        assert_eq!(parse("", "a"), None);
    }
}
