//! The outbox on a real Postgres.

use berth_db::outbox::{Consumer, Event, Handler, publish};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

/// Writes each event's key into a table, and fails the first time it sees `bad`.
struct Recorder {
    failed: bool,
    seen: tokio::sync::mpsc::UnboundedSender<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("recording failed")]
struct RecordError(#[source] Option<sqlx::Error>);

impl Handler for Recorder {
    type Error = RecordError;

    async fn handle(&mut self, conn: &mut PgConnection, event: &Event) -> Result<(), RecordError> {
        sqlx::query("INSERT INTO public.seen (key) VALUES ($1)")
            .bind(&event.key)
            .execute(&mut *conn)
            .await
            .map_err(|error| RecordError(Some(error)))?;
        if event.key == "bad" && !self.failed {
            self.failed = true;
            return Err(RecordError(None));
        }
        let _ = self.seen.send(event.key.clone());
        Ok(())
    }
}

#[tokio::test]
async fn every_event_has_its_effect_once_and_in_order() {
    let database = berth_testkit::database_with(&berth_db::MIGRATIONS).await;
    let pool = &database.pool;
    sqlx::query("CREATE TABLE public.seen (n bigserial, key text)").execute(pool).await.unwrap();
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let consumer = Consumer::new(pool.clone(), "test", &["things", "more"]);

    // A transaction that began first and commits last must not be skipped.
    let mut late = pool.begin().await.unwrap();
    publish(&mut late, "things", "late", &1).await.unwrap();
    let mut early = pool.begin().await.unwrap();
    publish(&mut early, "things", "early", &2).await.unwrap();
    early.commit().await.unwrap();
    let run = tokio::spawn({
        let (consumer, shutdown) = (consumer.clone(), shutdown.clone());
        async move { consumer.run(Recorder { failed: false, seen: sender }, shutdown).await }
    });
    late.commit().await.unwrap();
    for (topic, key) in [("more", "bad"), ("things", "last")] {
        let mut conn = pool.acquire().await.unwrap();
        publish(&mut conn, topic, key, &3).await.unwrap();
        publish(&mut conn, "other", "not for us", &3).await.unwrap();
    }
    let mut order = Vec::new();
    while order.len() < 4 {
        order.push(seen.recv().await.unwrap());
    }
    assert_eq!(order, ["late", "early", "bad", "last"]);
    // The handler was called; its transaction commits a moment later.
    let mut rows: Vec<String> = Vec::new();
    while rows.len() < 4 {
        tokio::task::yield_now().await;
        rows = sqlx::query_scalar("SELECT key FROM public.seen ORDER BY n").fetch_all(pool).await.unwrap();
    }
    assert_eq!(rows, order, "what a failing handler wrote was undone");
    shutdown.cancel();
    run.await.unwrap();
}

#[tokio::test]
async fn an_event_that_waits_for_an_older_transaction_comes_soon_after_its_end() {
    let database = berth_testkit::database_with(&berth_db::MIGRATIONS).await;
    let pool = &database.pool;
    sqlx::query("CREATE TABLE public.seen (n bigserial, key text)").execute(pool).await.unwrap();
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let consumer = Consumer::new(pool.clone(), "test", &["things"]);
    let run = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { consumer.run(Recorder { failed: false, seen: sender }, shutdown).await }
    });
    let publish_one = async |key: &str| {
        let mut conn = pool.acquire().await.unwrap();
        publish(&mut conn, "things", key, &1).await.unwrap();
    };
    publish_one("first").await;
    assert_eq!(seen.recv().await.unwrap(), "first", "the consumer listens");

    // It writes nothing that anybody reads, and gives no notice when it ends.
    let mut older = pool.begin().await.unwrap();
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *older).await.unwrap();
    publish_one("held").await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), seen.recv()).await;
    assert!(early.is_err(), "{early:?}");
    older.commit().await.unwrap();
    let held = tokio::time::timeout(std::time::Duration::from_secs(3), seen.recv()).await;
    assert_eq!(held.unwrap().unwrap(), "held");
    shutdown.cancel();
    run.await.unwrap();
}
