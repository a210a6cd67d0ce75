//! Keeps the price list in step with the classes of ws-manager.

use std::time::Duration;

use berth_api_types::internal::Class;
use berth_clock::SharedClock;
use berth_http::{CallError, InternalClient};
use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::store::prices;

/// Why the prices could not be updated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PricesError {
    /// ws-manager did not answer.
    #[error("the classes could not be read from ws-manager")]
    Call(#[from] CallError),
    /// The database.
    #[error("the price list cannot be written")]
    Database(#[from] sqlx::Error),
}

/// Keeps the price list, until `shutdown`.
pub(crate) async fn run(
    pool: &PgPool,
    ws_manager: &InternalClient,
    clock: &SharedClock,
    every: Duration,
    shutdown: CancellationToken,
) {
    loop {
        let Some(refreshed) = shutdown.run_until_cancelled(refresh(pool, ws_manager, clock)).await else { return };
        let pause = match refreshed {
            Ok(()) => every,
            Err(error) => {
                tracing::warn!(error = %berth_http::problem::chain(&error), "the price list was not brought up to date: will try again");
                Duration::from_secs(1).min(every)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Reads the classes, records changed prices, and prices records that had none. Idempotent.
async fn refresh(pool: &PgPool, ws_manager: &InternalClient, clock: &SharedClock) -> Result<(), PricesError> {
    let classes: Vec<Class> = ws_manager.get("/internal/classes").await?;
    let now = clock.now();
    let mut transaction = pool.begin().await?;
    for class in &classes {
        match class.credits_per_hour.parse::<Decimal>() {
            Ok(price) if price >= Decimal::ZERO && price.scale() <= 6 => {
                if prices::set(&mut transaction, &class.name, price, now).await? {
                    tracing::info!(class = %class.name, credits_per_hour = %price, "a price holds from now on");
                }
            }
            _ => {
                tracing::error!(class = %class.name, price = %class.credits_per_hour, "the class's price is not a decimal number with at most 6 places: left as it was")
            }
        }
    }
    let filled = prices::fill(&mut transaction).await?;
    transaction.commit().await?;
    if filled > 0 {
        tracing::info!(records = filled, "usage records got their price");
    }
    Ok(())
}
