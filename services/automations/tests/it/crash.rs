use std::time::Duration;

use berth_api_types::automations::AutomationPhase;
use berth_api_types::public::Phase;

use crate::support::service;

#[tokio::test]
async fn units_run_on_when_the_service_is_killed_and_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let text = format!(
        "services:\n  s: {{name: S, commands: {{start: exec sleep 1000}}, triggeredBy: [postEnvironmentStart]}}\ntasks:\n  long:\n    command: \"while ! test -e {0}; do sleep 0.05; done; echo done=1 >> $BERTH_OUTPUT; echo finished\"\n    triggeredBy: [postEnvironmentStart]\n  next: {{command: echo next, dependsOn: [long], triggeredBy: [postEnvironmentStart]}}\n",
        gate.display()
    );
    let mut service = service(&text).await;
    service.instance(1, Phase::Running, true).await;
    service.wait("/services/s", AutomationPhase::Running).await;
    service.wait("/tasks/long", AutomationPhase::Running).await;
    service.kill().await;
    std::fs::write(&gate, "").unwrap();
    // It ends while nobody watches.
    let ended = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let logs = service.call("GET", "/tasks/long/logs", "anna").await;
            if logs.text == "finished\n" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await.unwrap();
    assert_eq!(
        service.list("tasks").await.items.iter().filter(|task| task.phase == AutomationPhase::Running).count(),
        1
    );
    service.restart();
    let long = service.wait("/tasks/long", AutomationPhase::Succeeded).await;
    assert_eq!(long.execution.unwrap().outputs["done"], "1");
    service.wait("/tasks/next", AutomationPhase::Succeeded).await;
    for unit in ["s", "long", "next"] {
        assert_eq!(service.workspace.runs(unit), 1, "{unit}");
    }
}

#[tokio::test]
async fn killed_again_and_again_nothing_runs_twice() {
    let mut text = "tasks:\n".to_owned();
    for number in 0..8 {
        let needs = if number == 0 { String::new() } else { format!(", dependsOn: [t{}]", number - 1) };
        text.push_str(&format!("  t{number}: {{command: sleep 0.02, triggeredBy: [postEnvironmentStart]{needs}}}\n"));
    }
    let mut service = service(&text).await;
    service.instance(1, Phase::Running, true).await;
    // Killed at ever other moments of the chain.
    for round in 0..40_u64 {
        tokio::time::sleep(Duration::from_millis(3 + round % 17 * 2)).await;
        service.kill().await;
        service.restart();
    }
    service.wait("/tasks/t7", AutomationPhase::Succeeded).await;
    for number in 0..8 {
        assert_eq!(service.workspace.runs(&format!("t{number}")), 1, "t{number}");
    }
}

#[tokio::test]
async fn a_workspace_that_cannot_be_reached_for_a_while() {
    let service = service("tasks:\n  a: {command: sleep 0.3; echo hi, triggeredBy: [postEnvironmentStart]}\n  b: {command: echo b, dependsOn: [a], triggeredBy: [postEnvironmentStart]}\n").await;
    service.workspace.away.send_replace(true);
    service.instance(1, Phase::Running, true).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(service.list("tasks").await.file.state, "unread");
    service.workspace.away.send_replace(false);
    service.wait("/tasks/a", AutomationPhase::Running).await;
    service.workspace.away.send_replace(true);
    tokio::time::sleep(Duration::from_millis(500)).await;
    service.workspace.away.send_replace(false);
    service.wait("/tasks/b", AutomationPhase::Succeeded).await;
    assert_eq!((service.workspace.runs("a"), service.workspace.runs("b")), (1, 1));
}

#[tokio::test]
async fn of_a_deleted_workspace_nothing_is_left_whenever_the_service_was_killed() {
    let mut service = service("tasks:\n  a: {command: echo hi, triggeredBy: [postEnvironmentStart]}\n").await;
    service.instance(1, Phase::Running, true).await;
    service.wait("/tasks/a", AutomationPhase::Succeeded).await;
    service.kill().await;
    service.instance(1, Phase::Stopped, true).await;
    service.deleted().await;
    for replay in [false, true] {
        if replay {
            // As if the process died before its offsets were kept: every event comes again, the first start's too.
            service.kill().await;
            sqlx::query("UPDATE outbox.offsets SET xid = '0', id = 0").execute(&service.database.pool).await.unwrap();
        }
        service.restart();
        let told = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                // Each topic's offset has reached its last event.
                let behind: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM outbox.events e LEFT JOIN outbox.offsets o ON o.topic = e.topic AND o.consumer = 'automations'
                     WHERE o.xid IS NULL OR (e.xid, e.id) > (o.xid, o.id)",
                )
                .fetch_one(&service.database.pool)
                .await
                .unwrap();
                if behind == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        told.await.unwrap();
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM automations.workspaces) + (SELECT count(*) FROM automations.units)
               + (SELECT count(*) FROM automations.executions)",
        )
        .fetch_one(&service.database.pool)
        .await
        .unwrap();
        assert_eq!(left, 0, "replay: {replay}");
    }
    assert_eq!(service.workspace.runs("a"), 1);
}

#[tokio::test]
async fn old_runs_are_forgotten() {
    let service = service("tasks:\n  a: {command: echo hi}\n").await;
    service.instance(1, Phase::Running, true).await;
    service.file("applied").await;
    for _ in 0..23 {
        service.post("/tasks/a/start").await;
        service.wait("/tasks/a", AutomationPhase::Succeeded).await;
    }
    let (kept,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM automations.executions").fetch_one(&service.database.pool).await.unwrap();
    assert_eq!((service.workspace.runs("a"), kept), (23, 20));
}
