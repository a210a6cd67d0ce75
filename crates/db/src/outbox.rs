//! The outbox: events written in the transaction that makes them true, read in order by consumers that keep an offset.
//!
//! Delivery is at least once; a handler that only writes SQL through the connection it is given has its effect exactly once, since the offset moves in
//! the same transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

/// The channel that wakes consumers. It carries the topic.
const CHANNEL: &str = "berth_outbox";
/// Events handled in one transaction.
const BATCH: i64 = 100;
/// A look without being woken: a notice that was lost costs this much.
const LOOK: Duration = Duration::from_secs(5);
/// The first look again at an event that waits for an older transaction, and the longest pause between two of them.
const FIRST_LOOK_AGAIN: Duration = Duration::from_millis(5);
const LAST_LOOK_AGAIN: Duration = Duration::from_secs(1);

/// An event that another service wrote.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Event {
    /// Position within its transaction's age.
    pub id: i64,
    /// What it is about.
    pub topic: String,
    /// Which thing: events of one key arrive in order.
    pub key: String,
    /// The JSON.
    pub payload: serde_json::Value,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    xid_text: String,
}

impl Event {
    /// The payload as a type.
    ///
    /// # Errors
    /// When the JSON does not have that shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.payload.clone())
    }
}

/// Writes an event in the caller's transaction.
///
/// # Errors
/// When the payload cannot be JSON or the database refuses.
pub async fn publish(
    conn: &mut PgConnection,
    topic: &str,
    key: &str,
    payload: &(impl Serialize + Sync),
) -> Result<(), sqlx::Error> {
    let payload = serde_json::to_value(payload).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "WITH event AS (INSERT INTO outbox.events (topic, key, payload) VALUES ($1, $2, $3)) SELECT pg_notify($4, $1)",
    )
    .bind(topic)
    .bind(key)
    .bind(payload)
    .bind(CHANNEL)
    .execute(conn)
    .await?;
    Ok(())
}

/// Why a consumer stopped.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The database failed; run the consumer again.
    #[error("the outbox cannot be read")]
    Database(#[from] sqlx::Error),
}

/// Handles an event. It may write through the connection: that commits with the offset.
pub trait Handler: Send {
    /// Why handling failed; the event is then handled again later.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Handles one event.
    fn handle(
        &mut self,
        conn: &mut PgConnection,
        event: &Event,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Reads topics on behalf of a consumer.
#[derive(Clone, Debug)]
pub struct Consumer {
    pool: PgPool,
    consumer: &'static str,
    topics: &'static [&'static str],
}

impl Consumer {
    /// A consumer of `topics`, whose events come in one order; its offset in each begins at the first event ever.
    #[must_use]
    pub const fn new(pool: PgPool, consumer: &'static str, topics: &'static [&'static str]) -> Self {
        Self { pool, consumer, topics }
    }

    /// Handles everything there is, then waits for more, until `shutdown`. Several processes may run the same consumer: one works at a time.
    pub async fn run<H: Handler>(&self, mut handler: H, shutdown: CancellationToken) {
        let mut retry = Retry::default();
        while !shutdown.is_cancelled() {
            let result = tokio::select! {
                result = self.follow(&mut handler, &mut retry) => result,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = result {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(consumer = self.consumer, error, "outbox: will connect again");
            }
            tokio::select! {
                () = retry.wait() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn follow<H: Handler>(&self, handler: &mut H, retry: &mut Retry) -> Result<(), ConsumeError> {
        // Listening begins before the first read, so that no event is missed in between.
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        let mut look_again = FIRST_LOOK_AGAIN;
        loop {
            let pause = match self.batch(handler, retry).await? {
                Left::More => continue,
                Left::Nothing => {
                    look_again = FIRST_LOOK_AGAIN;
                    LOOK
                }
                Left::Held => {
                    let pause = look_again;
                    look_again = (look_again * 2).min(LAST_LOOK_AGAIN);
                    pause
                }
            };
            match tokio::time::timeout(pause, listener.recv()).await {
                Ok(notification) => drop(notification?),
                Err(_) => tracing::trace!(consumer = self.consumer, "outbox: a look without notice"),
            }
        }
    }

    /// Handles one batch.
    async fn batch<H: Handler>(&self, handler: &mut H, retry: &mut Retry) -> Result<Left, ConsumeError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO outbox.offsets (consumer, topic) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
        )
        .bind(self.consumer)
        .bind(self.topics)
        .execute(&mut *transaction)
        .await?;
        // Locked in one order, so that two processes cannot wait for each other.
        sqlx::query("SELECT 1 FROM outbox.offsets WHERE consumer = $1 AND topic = ANY($2) ORDER BY topic FOR UPDATE")
            .bind(self.consumer)
            .bind(self.topics)
            .execute(&mut *transaction)
            .await?;
        // Read after the lock was taken: the offsets are those that the previous process left.
        let events: Vec<Event> = sqlx::query_as(
            "SELECT e.id, e.topic, e.key, e.payload, e.created_at, e.xid::text AS xid_text
             FROM outbox.offsets o CROSS JOIN LATERAL (
                 SELECT * FROM outbox.events
                 WHERE topic = o.topic AND (xid, id) > (o.xid, o.id) AND xid < pg_snapshot_xmin(pg_current_snapshot())
                 ORDER BY xid, id LIMIT $3
             ) e
             WHERE o.consumer = $1 AND o.topic = ANY($2) ORDER BY e.xid, e.id LIMIT $3",
        )
        .bind(self.consumer)
        .bind(self.topics)
        .bind(BATCH)
        .fetch_all(&mut *transaction)
        .await?;
        // The last event of each topic that was handled.
        let mut reached: BTreeMap<&str, &Event> = BTreeMap::new();
        let mut failed = false;
        for event in &events {
            // A savepoint: what a failing handler wrote is undone, what its predecessors wrote stays.
            let mut savepoint = sqlx::Connection::begin(&mut *transaction).await?;
            match handler.handle(&mut savepoint, event).await {
                Ok(()) => {
                    savepoint.commit().await?;
                    reached.insert(&event.topic, event);
                }
                Err(error) => {
                    savepoint.rollback().await?;
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        consumer = self.consumer, topic = event.topic, event = event.id, key = %event.key, error,
                        "outbox: an event could not be handled; it will be tried again"
                    );
                    failed = true;
                    break;
                }
            }
        }
        for (topic, event) in &reached {
            sqlx::query("UPDATE outbox.offsets SET xid = $3::xid8, id = $4 WHERE consumer = $1 AND topic = $2")
                .bind(self.consumer)
                .bind(topic)
                .bind(&event.xid_text)
                .bind(event.id)
                .execute(&mut *transaction)
                .await?;
        }
        let held: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM outbox.offsets o JOIN outbox.events e ON e.topic = o.topic AND (e.xid, e.id) > (o.xid, o.id)
             WHERE o.consumer = $1 AND o.topic = ANY($2))",
        )
        .bind(self.consumer)
        .bind(self.topics)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if failed {
            retry.wait().await;
            return Ok(Left::More);
        }
        if !reached.is_empty() {
            retry.reset();
        }
        let full = events.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        Ok(match (full, held) {
            (true, _) => Left::More,
            (false, true) => Left::Held,
            (false, false) => Left::Nothing,
        })
    }
}

/// What a batch has left for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Events that can be read.
    More,
    /// Events that can be read when every transaction older than theirs has ended, which nothing tells.
    Held,
    Nothing,
}

/// Waits longer after each failure, from 100 ms to 10 s.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    async fn wait(&mut self) {
        let millis = 100_u64.saturating_mul(1 << self.failures.min(7)).min(10_000);
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    const fn reset(&mut self) {
        self.failures = 0;
    }
}
