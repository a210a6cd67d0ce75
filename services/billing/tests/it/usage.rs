use berth_api_types::public::Phase;
use rust_decimal::Decimal;

use crate::support::{ANNA, BEN, Service, at, event, instance, service};

/// Ten runs of ben's, an hour each from 00:00, with 15 minutes between; one of anna's outside the team.
async fn filled() -> Service {
    let service = service().await;
    service.run();
    for number in 0..10 {
        let start = number * 75;
        let clock = |minute: u32| format!("{:02}:{:02}:07.123", minute / 60, minute % 60);
        let mut run = event(number, Phase::Stopped, Some(&clock(start)), Some(&clock(start + 60)));
        if start + 60 > 12 * 60 {
            run.phase = Phase::Running;
            run.stopped_at = None;
        }
        if number % 2 == 1 {
            run.class = "large".to_owned();
        }
        if number == 3 {
            run.repository = "gitlab.com/a/b/c".to_owned();
            run.workspace_name = "=cmd|' /C calc'!A0".to_owned();
        }
        service.publish(&run).await;
    }
    let mut annas = event(50, Phase::Stopped, Some("03:00:00"), Some("04:00:00"));
    annas.owner_id = ANNA.parse().unwrap();
    annas.organization_id = instance(77).parse().unwrap();
    service.publish(&annas).await;
    service.settled().await;
    service
}

#[tokio::test]
async fn members_see_their_own_usage_and_owners_that_of_the_organization() {
    let service = filled().await;
    for (token, records) in [("ben", 10), ("anna", 11), ("root", 11), ("eve", 0)] {
        assert_eq!(service.usage("", token).await.totals.records, records, "{token}");
    }
    // Asking for somebody else's by name does not help.
    assert_eq!(service.usage(&format!("?user={ANNA}"), "ben").await.totals.records, 0);
    assert_eq!(service.usage(&format!("?organization={}", instance(77)), "ben").await.totals.records, 0);
    assert_eq!(service.usage("?user=me", "anna").await.totals.records, 1);
    for path in ["/api/v1/usage", "/api/v1/usage.csv"] {
        for token in ["", "mallory"] {
            assert_eq!(service.get(path, token).await.status, 401, "{path}");
        }
    }
}

#[tokio::test]
async fn filters_choose_records_and_nonsense_is_refused() {
    let service = filled().await;
    for (query, records) in [
        ("?class=large", 5),
        ("?project=gitlab.com/a/b/c", 1),
        ("?project=https://gitlab.com/a/b/c.git", 1),
        ("?repository=github.com/team/app&class=small", 5),
        (&format!("?user={BEN}"), 10),
        ("?class=nosuch", 0),
        ("?from=2026-11-23T00:00:00Z&to=2026-11-23T01:00:07.123Z", 1),
        ("?from=2026-11-23T01:00:07.123Z&to=2026-11-23T01:15:07.123Z", 0),
        ("?from=2026-11-23T01:00:00Z&to=2026-11-23T01:15:07.124Z", 2),
        ("?from=2026-11-24T00:00:00Z", 0),
        ("?from=2026-11-24T00:00:00Z&to=2026-11-24T00:00:00Z", 0),
    ] {
        assert_eq!(service.usage(query, "ben").await.totals.records, records, "{query}");
    }
    for query in [
        "?from=yesterday",
        "?user=ben",
        "?limit=0",
        "?limit=201",
        "?cursor=x",
        "?organization=x",
        "?to=",
        "?from=2026-11-23T02:00:00Z&to=2026-11-23T01:59:59Z",
    ] {
        assert_eq!(service.get(&format!("/api/v1/usage{query}"), "ben").await.status, 400, "{query}");
    }
    let answer = service.get("/api/v1/usage?from=2026-11-28", "ben").await;
    assert!(answer.text.contains("is not a time: write RFC 3339"), "{}", answer.text);
}

#[tokio::test]
async fn windows_add_up_to_the_whole_and_never_overlap() {
    let service = filled().await;
    let whole = service.usage("?limit=200", "ben").await;
    let sum = |items: &[berth_api_types::usage::UsageRecord]| -> Decimal {
        items.iter().map(|item| item.credits.as_deref().unwrap().parse::<Decimal>().unwrap()).sum()
    };
    assert_eq!(sum(&whole.items), whole.totals.credits.parse().unwrap());
    assert_eq!(whole.items.iter().map(|item| item.duration_ms).sum::<i64>(), whole.totals.duration_ms);
    // Odd windows over the day: every millisecond is in exactly one of them.
    let (mut credits, mut duration, mut from) = (Decimal::ZERO, 0, at("00:00:00"));
    while from < at("12:00:00") {
        let to = from + chrono::TimeDelta::milliseconds(1_234_567);
        let text = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let part = service.usage(&format!("?limit=200&from={}&to={}", text(from), text(to)), "ben").await;
        assert_eq!(sum(&part.items), part.totals.credits.parse().unwrap());
        assert!(part.items.iter().all(|item| item.counted_from >= from && item.counted_to <= to));
        credits += part.totals.credits.parse::<Decimal>().unwrap();
        duration += part.totals.duration_ms;
        from = to;
    }
    assert_eq!((credits, duration), (whole.totals.credits.parse().unwrap(), whole.totals.duration_ms));
    // And by class: the pieces of the whole.
    let small: Decimal = service.usage("?class=small", "ben").await.totals.credits.parse().unwrap();
    let large: Decimal = service.usage("?class=large", "ben").await.totals.credits.parse().unwrap();
    assert_eq!(small + large, whole.totals.credits.parse().unwrap());
}

#[tokio::test]
async fn pages_show_each_record_once_and_the_same_sums() {
    let service = filled().await;
    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_owned());
    let whole = service.usage("", "ben").await;
    loop {
        let page = service.usage(&query, "ben").await;
        assert_eq!(page.totals, whole.totals, "the clock goes on, the list does not");
        service.clock.advance(chrono::TimeDelta::minutes(1));
        seen.extend(page.items.into_iter().map(|item| item.id));
        match page.next_cursor {
            Some(cursor) => query = format!("?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, whole.items.iter().map(|item| item.id).collect::<Vec<_>>());
}

#[tokio::test]
async fn csv_for_a_spreadsheet() {
    let service = filled().await;
    let answer = service.get("/api/v1/usage.csv?project=gitlab.com/a/b/c", "ben").await;
    assert_eq!(answer.headers["content-type"], "text/csv; charset=utf-8; header=present");
    assert!(answer.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    let lines: Vec<&str> = answer.text.split("\r\n").collect();
    assert_eq!(lines.len(), 3, "head, one record, the end of the last line");
    assert!(lines[0].starts_with("started_at,stopped_at,"));
    assert!(lines[1].contains(",\"'=cmd|' /C calc'!A0\","), "{}", lines[1]);
    assert!(lines[1].ends_with(",large,3600000,6"), "{}", lines[1]);
    let all = service.get("/api/v1/usage.csv", "ben").await;
    assert_eq!(all.text.split("\r\n").count(), 12);
}

#[tokio::test]
async fn an_export_longer_than_a_batch_is_whole() {
    let service = service().await;
    sqlx::query(
        "INSERT INTO billing.usage_records
           (id, instance_id, workspace_id, workspace_name, owner_id, organization_id, repository, class, credits_per_hour, started_at, stopped_at, version)
         SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'w', $1::uuid, $1::uuid, 'h/o/n', 'small', 1,
           '2026-11-01'::timestamptz + (n / 3) * interval '1 second', '2026-11-02', 1 FROM generate_series(1, 2500) AS n",
    )
    .bind(uuid::Uuid::parse_str(BEN).unwrap())
    .execute(&service.database.pool)
    .await
    .unwrap();
    let all = service.get("/api/v1/usage.csv", "ben").await;
    let mut lines: Vec<&str> = all.text.split("\r\n").skip(1).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2500);
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 2500, "each record once");
}
