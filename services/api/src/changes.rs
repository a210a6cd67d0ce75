//! News between processes and within one: which workspaces changed, and whose credentials must be looked up anew.
//!
//! Within the process news goes by a broadcast channel after the commit. Other processes hear of it by `NOTIFY`, which Postgres sends with the
//! commit. A subscriber is told *that* something changed and reads what it is now, so it can neither see it in the wrong order nor too early.

use std::time::Duration;

use berth_clock::Entropy;
use berth_ids::{UserId, WorkspaceId};
use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::store::StoreError;

const CHANNEL: &str = "berth_api";
/// A subscriber that is further behind than this reads everything anew.
const BACKLOG: usize = 4096;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This workspace, or its run.
    Workspace(WorkspaceId),
    /// News may have been missed: read everything anew.
    Resync,
}

/// Sends and receives news.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    sender: broadcast::Sender<Change>,
    /// Tells this process's own notifications from others'.
    origin: String,
}

/// A notification of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Workspace(WorkspaceId),
    User(UserId),
}

/// A notification, for statements that send it themselves.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) channel: &'static str,
    pub(crate) payload: String,
}

fn parse(payload: &str, own: &str) -> Option<Heard> {
    let mut words = payload.split(' ');
    let (origin, kind, id) = (words.next()?, words.next()?, words.next()?);
    if origin == own {
        return None;
    }
    match kind {
        "workspace" => id.parse().ok().map(Heard::Workspace),
        "user" => id.parse().ok().map(Heard::User),
        _ => None,
    }
}

impl Changes {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0_u8; 8];
        entropy.fill(&mut bytes);
        let origin = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { sender: broadcast::Sender::new(BACKLOG), origin }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }

    /// Tells this process; after the commit.
    pub(crate) fn publish(&self, workspace: WorkspaceId) {
        // No subscriber is no error.
        let _ = self.sender.send(Change::Workspace(workspace));
    }

    /// Tells other processes, with the caller's transaction.
    pub(crate) async fn notify(&self, conn: &mut PgConnection, workspace: WorkspaceId) -> Result<(), StoreError> {
        self.send(conn, self.notice(workspace).payload).await
    }

    /// The notification of a workspace's change, for the statement that changes it.
    pub(crate) fn notice(&self, workspace: WorkspaceId) -> Notice {
        Notice { channel: CHANNEL, payload: format!("{} workspace {workspace}", self.origin) }
    }

    /// Tells other processes, with the caller's transaction, that the rights or credentials of a user changed.
    pub(crate) async fn notify_user(&self, conn: &mut PgConnection, user: UserId) -> Result<(), StoreError> {
        self.send(conn, format!("{} user {user}", self.origin)).await
    }

    async fn send(&self, conn: &mut PgConnection, payload: String) -> Result<(), StoreError> {
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(conn).await?;
        Ok(())
    }

    /// Passes other processes' news on, until `shutdown`.
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
        // `try_recv` is none when the connection broke: then news may be missing, and the caller begins anew.
        while let Some(notification) = listener.try_recv().await? {
            match parse(notification.payload(), &self.origin) {
                Some(Heard::Workspace(id)) => self.publish(id),
                Some(Heard::User(id)) => forget_user(Some(id)),
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
        assert_eq!(parse(&format!("b workspace {id}"), "a"), Some(Heard::Workspace(id)));
        assert_eq!(parse(&format!("a workspace {id}"), "a"), None);
        assert_eq!(parse("b workspace x", "a"), None);
        assert_eq!(parse("", "a"), None);
    }
}
