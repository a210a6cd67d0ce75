use berth_api_types::public::Phase;
use rust_decimal::Decimal;

use crate::support::{at, event, service};

#[tokio::test]
async fn a_run_becomes_a_record_once_however_often_it_is_told() {
    let service = service().await;
    service.run();
    let started = event(1, Phase::Running, Some("10:00:00"), None);
    let stopped = event(1, Phase::Stopped, Some("10:00:00"), Some("11:00:00"));
    service.publish(&event(1, Phase::Creating, None, None)).await;
    service.publish(&started).await;
    service.settled().await;
    let open = service.usage("", "ben").await;
    assert_eq!((open.items.len(), open.items[0].stopped_at), (1, None));
    assert_eq!(open.items[0].credits.as_deref(), Some("3"), "two hours until now, at 1.5");

    service.publish(&stopped).await;
    for replay in [&started, &stopped, &started] {
        service.publish(replay).await;
    }
    let mut late = event(1, Phase::Stopped, Some("10:00:00"), Some("11:30:00"));
    late.version = 9;
    service.publish(&late).await;
    service.settled().await;
    let page = service.usage("", "ben").await;
    assert_eq!(page.totals.records, 1);
    assert_eq!(page.items[0].stopped_at, Some(at("11:00:00")), "a stop that is known stays");
    assert_eq!((page.items[0].credits.as_deref(), page.totals.credits.as_str()), (Some("1.5"), "1.5"));
    assert_eq!(page.items[0].duration_ms, 3_600_000);
}

#[tokio::test]
async fn a_start_that_failed_costs_nothing_and_a_stop_alone_is_enough() {
    let service = service().await;
    service.run();
    service.publish(&event(1, Phase::Stopped, None, Some("11:00:00"))).await;
    service.publish(&event(2, Phase::Stopped, Some("10:00:00"), Some("10:30:00"))).await;
    service.settled().await;
    let page = service.usage("", "ben").await;
    assert_eq!((page.totals.records, page.totals.credits.as_str()), (1, "0.75"));
}

#[tokio::test]
async fn the_price_is_that_of_the_start() {
    let service = service().await;
    service.run();
    service.publish(&event(1, Phase::Running, Some("10:00:00"), None)).await;
    service.settled().await;
    service.clock.advance(chrono::TimeDelta::hours(1));
    service.classes.lock().unwrap()[0].1 = "3".to_owned();
    service.wait("SELECT count(*) = 2 FROM billing.prices WHERE class = 'small'").await;
    service.publish(&event(1, Phase::Stopped, Some("10:00:00"), Some("14:00:00"))).await;
    service.publish(&event(2, Phase::Stopped, Some("13:00:00"), Some("14:00:00"))).await;
    // What started before the change and is told after it has the old price.
    service.publish(&event(3, Phase::Stopped, Some("12:00:00"), Some("14:00:00"))).await;
    service.settled().await;
    let page = service.usage("", "ben").await;
    let credits: Vec<&str> = page.items.iter().map(|item| item.credits.as_deref().unwrap()).collect();
    assert_eq!(credits, ["3", "3", "6"], "the newest first: 1 h at 3, 2 h at 1.5, 4 h at 1.5");
}

#[tokio::test]
async fn a_class_without_a_price_gets_it_later() {
    let service = service().await;
    service.run();
    let mut huge = event(1, Phase::Stopped, Some("10:00:00"), Some("11:00:00"));
    huge.class = "huge".to_owned();
    service.publish(&huge).await;
    service.wait("SELECT count(*) = 1 FROM billing.usage_records").await;
    let page = service.usage("", "ben").await;
    assert_eq!((page.totals.unpriced_records, page.totals.credits.as_str(), &page.items[0].credits), (1, "0", &None));
    service.classes.lock().unwrap().push(("huge".to_owned(), "12.000001".to_owned()));
    service.settled().await;
    assert_eq!(service.usage("", "ben").await.totals.credits, "12.000001");
}

#[tokio::test]
async fn an_event_that_is_not_understood_does_not_hold_up_the_rest() {
    let service = service().await;
    service.run();
    let mut transaction = service.database.pool.begin().await.unwrap();
    berth_db::outbox::publish(&mut transaction, "instance", "x", &serde_json::json!({ "nonsense": true }))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    service.publish(&event(2, Phase::Stopped, Some("10:00:00"), Some("11:00:00"))).await;
    service.settled().await;
    assert_eq!(service.usage("", "ben").await.totals.records, 1);
    service.wait("SELECT count(*) = 1 FROM billing.rejected_events").await;
}

#[tokio::test]
async fn the_database_and_the_service_count_alike() {
    let service = service().await;
    let cases: [(&str, i64); 7] = [
        ("1.5", 1),
        ("1.8", 1),
        ("0.000001", 3_599_999),
        ("12.345678", 86_399_999),
        ("99999999.999999", 31_536_000_000),
        ("0", 5),
        ("0.0018", 1000),
    ];
    for (price, ms) in cases {
        let price: Decimal = price.parse().unwrap();
        let (sql,): (Decimal,) = sqlx::query_as("SELECT billing.credits($1, $2)")
            .bind(price)
            .bind(ms)
            .fetch_one(&service.database.pool)
            .await
            .unwrap();
        let exact = (price * Decimal::from(ms) / Decimal::from(3_600_000))
            .round_dp_with_strategy(6, rust_decimal::RoundingStrategy::MidpointAwayFromZero);
        assert_eq!(sql.normalize(), exact.normalize(), "{price} {ms}");
    }
}

#[tokio::test]
async fn events_in_any_order_and_number_make_the_same_record() {
    let service = service().await;
    service.run();
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (number, order) in (0_u32..).zip(orders) {
        let mut events = [
            event(number, Phase::Running, Some("10:00:00.0009"), None),
            event(number, Phase::Stopping, Some("10:00:00.0009"), None),
            event(number, Phase::Stopped, Some("10:00:00.0009"), Some("10:40:00.0005")),
        ];
        for (version, event) in (1_u64..).zip(&mut events) {
            event.version = version;
        }
        for at in order.into_iter().chain(order) {
            service.publish(&events[at]).await;
        }
    }
    service.settled().await;
    let page = service.usage("", "ben").await;
    assert_eq!((page.totals.records, page.totals.duration_ms, page.totals.credits.as_str()), (6, 6 * 2_400_000, "6"));
    assert!(
        page.items.iter().all(|item| item.stopped_at == Some(at("10:40:00")) && item.credits.as_deref() == Some("1"))
    );
}
