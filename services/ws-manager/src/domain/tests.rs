//! The rules by tables: one instance, a world around it, and what must come of it.

mod anything;
mod world;

use berth_workspace_crd::{ConditionStatus, ConditionType, Disk, DiskSpec, Phase, Timeouts};
use chrono::TimeDelta;
use k8s_openapi::api::core::v1::PodStatus;

use crate::domain::actions::Action;
use crate::domain::{pod, time};

pub(crate) use world::workspace;
use world::{World, class, node, stamp};

#[test]
fn a_start_and_a_stop() {
    let mut world = World::new();
    let done = world.settle();
    assert_eq!(done, [Action::CreatePod { attempt: 1, node: Some("one".into()) }]);
    assert_eq!((world.status().phase, world.status().attempt, world.writes), (Phase::Creating, 1, 1));
    assert!(world.is(ConditionType::Deployed));

    world.pod_status("Running", "", "");
    world.settle();
    assert_eq!(world.status().phase, Phase::Initializing);
    world.ready();
    world.pass(1);
    world.settle();
    assert_eq!((world.status().phase, world.writes), (Phase::Running, 3));
    assert_eq!(world.status().started_at.as_deref(), Some("2026-11-23T10:00:01.000Z"));
    assert!(world.is(ConditionType::EverReady));

    world.condition(ConditionType::StoppedByRequest, ConditionStatus::True, 0, "stopped by Ada");
    let done = world.settle();
    assert!(matches!(&done[..], [Action::DeletePod { grace_seconds: None, .. }]), "{done:?}");
    assert_eq!((world.status().phase, world.status().reason.as_str()), (Phase::Stopping, "stopped by Ada"));
    world.exit(137, "Error");
    world.settle();
    assert!(!world.is(ConditionType::Failed), "a process that is killed by a stop is no failure");
    world.pass(2);
    world.node_stops();
    let status = world.status();
    assert_eq!((status.phase, status.stopped_at.as_deref()), (Phase::Stopped, Some("2026-11-23T10:00:03.000Z")));
    assert_eq!(world.seen, [Phase::Creating, Phase::Initializing, Phase::Running, Phase::Stopping, Phase::Stopped]);
    assert_eq!(world.next, Some(world.now + TimeDelta::days(1)));
}

#[test]
fn a_fast_start_is_two_status_writes() {
    assert_eq!(World::running().writes, 2);
}

#[test]
fn readiness_that_flaps_does_not_lead_back() {
    let mut world = World::running();
    world.pod(|pod| pod.status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() }));
    world.settle();
    assert_eq!(world.status().phase, Phase::Running);
    world.pod(|pod| pod.status = None);
    world.settle();
    assert_eq!((world.status().phase, world.writes), (Phase::Running, 2));
}

#[test]
fn a_rejected_pod_is_made_again_out_of_sight() {
    let mut world = World::new();
    world.settle();
    world.pod_status("Failed", "OutOfmemory", "Pod was rejected");
    let done = world.settle();
    assert!(matches!(&done[..], [Action::DeletePod { .. }]), "{done:?}");
    assert!(world.is(ConditionType::PodRejected));
    world.pods.clear();
    assert!(world.settle().is_empty(), "not before the pause is over");
    assert_eq!(world.next, Some(world.now + TimeDelta::seconds(1)));
    world.pass(1);
    assert_eq!(world.settle(), [Action::CreatePod { attempt: 2, node: Some("one".into()) }]);
    // A late word of the first pod's node.
    world.condition(ConditionType::ContentReady, ConditionStatus::False, 1, "the old one failed");
    world.settle();
    assert!(!world.is(ConditionType::Failed));
    world.ready();
    world.settle();
    assert_eq!(world.seen, [Phase::Creating, Phase::Running]);
    assert_eq!((world.status().attempt, world.status().reason.as_str()), (2, ""));
}

#[test]
fn attempts_are_bounded_and_the_pause_grows() {
    let mut world = World::new();
    for attempt in 1..=5_u32 {
        world.settle();
        assert_eq!(world.status().attempt, attempt);
        world.pod_status("Failed", "OutOfcpu", "no room");
        world.settle();
        world.pods.clear();
        world.settle();
        if attempt < 5 {
            let pause = world.next.unwrap() - world.now;
            assert_eq!(pause, TimeDelta::seconds(1 << (attempt - 1)));
            world.now += pause;
        }
    }
    let status = world.status();
    assert_eq!(status.phase, Phase::Stopped);
    assert!(status.reason.contains("in 5 attempts") && status.reason.contains("no room"), "{}", status.reason);
    assert_eq!(world.seen, [Phase::Creating, Phase::Stopping, Phase::Stopped]);
}

#[test]
fn an_attempt_that_was_ready_is_never_made_again() {
    for (name, end) in [
        ("evicted", (|world: &mut World| world.pod_status("Failed", "Evicted", "low on memory")) as fn(&mut World)),
        ("rejected late", |world| world.condition(ConditionType::PodRejected, ConditionStatus::True, 1, "too late")),
        ("pod gone", |world| world.pods.clear()),
        ("node gone", |world| world.nodes.clear()),
        ("machine restarted", |world| world.exit(137, "NodeRestarted")),
        ("ended by itself", |world| world.exit(0, "Completed")),
    ] {
        let mut world = World::running();
        end(&mut world);
        world.settle();
        world.pass(100);
        world.settle();
        if !world.pods.is_empty() {
            world.node_stops();
        }
        let status = world.status();
        assert_eq!((status.phase, status.attempt), (Phase::Stopped, 1), "{name}: {status:?}");
        assert!(!status.is(ConditionType::Failed) && !status.reason.is_empty(), "{name}: {status:?}");
    }
}

#[test]
fn failures_are_told_once_and_for_all() {
    let mut world = World::running();
    world.exit(1, "Error");
    world.settle();
    let first = world.status().condition(ConditionType::Failed).unwrap().clone();
    assert!(first.message.contains("exit status 1"), "{first:?}");
    world.exit(2, "Error");
    world.pass(5);
    world.settle();
    assert_eq!(world.status().condition(ConditionType::Failed), Some(&first));
    world.node_stops();
    assert_eq!((world.status().phase, world.status().reason), (Phase::Stopped, first.message));
}

#[test]
fn content_that_cannot_be_made_fails_the_start_without_a_retry() {
    let mut world = World::new();
    world.settle();
    world.condition(ConditionType::ContentReady, ConditionStatus::False, 1, "branch \"x\" does not exist");
    world.settle();
    world.node_stops();
    let status = world.status();
    assert_eq!((status.phase, status.attempt), (Phase::Stopped, 1));
    assert_eq!(status.reason, "branch \"x\" does not exist");
    assert!(status.is(ConditionType::Failed) && status.started_at.is_none());
}

#[test]
fn a_start_that_nobody_can_make_is_stopped_at_once() {
    let mut world = World::new();
    world.class = None;
    assert!(world.settle().is_empty());
    assert_eq!((world.status().phase, world.next), (Phase::Pending, Some(world.now + TimeDelta::seconds(10))));
    world.pass(10);
    assert!(world.settle().is_empty());
    assert_eq!(world.status().phase, Phase::Stopped);
    assert!(world.status().reason.contains("class \"small\" does not exist"));

    let mut world = World::new();
    world.condition(ConditionType::StoppedByRequest, ConditionStatus::True, 0, "never mind");
    assert!(world.settle().is_empty());
    assert_eq!((world.status().phase, world.status().reason.as_str()), (Phase::Stopped, "never mind"));
}

#[test]
fn an_instance_is_placed_on_its_disks_node_or_the_only_ready_one() {
    let disk = |node: &str| Some(Disk::new("d", DiskSpec { node: node.into(), size_bytes: 1, image: None }));
    let create = |node: Option<&str>| vec![Action::CreatePod { attempt: 1, node: node.map(str::to_owned) }];
    let table = [
        ("one node", vec![node("one", true)], None, create(Some("one")), ""),
        ("two nodes", vec![node("one", true), node("two", true)], None, create(None), ""),
        ("one of two", vec![node("one", false), node("two", true)], None, create(Some("two")), ""),
        ("the disk's", vec![node("one", true), node("two", true)], disk("two"), create(Some("two")), ""),
        ("none ready", vec![node("one", false)], None, vec![], "waiting for a node to be ready"),
        (
            "disk's not ready",
            vec![node("one", false), node("two", true)],
            disk("one"),
            vec![],
            "waiting for node one, which holds the workspace's disk and is not ready",
        ),
        (
            "disk's gone",
            vec![node("two", true)],
            disk("one"),
            vec![],
            "waiting for node one, which holds the workspace's disk and is not in the cluster",
        ),
    ];
    for (name, nodes, disk, expected, reason) in table {
        let mut world = World::new();
        world.nodes = nodes;
        world.disk = disk;
        assert_eq!(world.settle(), expected, "{name}");
        assert_eq!(world.status().reason, reason, "{name}");
        assert_ne!(world.status().phase, Phase::Stopped);
    }
}

#[test]
fn a_queue_is_visible() {
    let mut world = World::new();
    world.settle();
    world.condition(ConditionType::Waiting, ConditionStatus::True, 1, "waiting for 2 GiB of memory");
    world.settle();
    assert_eq!(world.status().reason, "waiting for 2 GiB of memory");
    world.condition(ConditionType::Waiting, ConditionStatus::False, 1, "");
    world.settle();
    assert_eq!(world.status().reason, "");
}

#[test]
fn a_node_that_disappears_releases_what_it_held() {
    let mut world = World::new();
    world.settle();
    world.nodes = vec![node("two", true)];
    let done = world.settle();
    assert!(
        matches!(&done[..], [Action::DeletePod { grace_seconds: Some(0), .. }, Action::ReleasePod { .. }]),
        "{done:?}"
    );
    world.pass(1);
    assert_eq!(world.settle(), [Action::CreatePod { attempt: 2, node: Some("two".into()) }]);

    let mut world = World::running();
    world.nodes.clear();
    world.settle();
    assert!(world.pods.is_empty() && world.is(ConditionType::NodeDisappeared));
    assert_eq!(
        (world.status().phase, world.status().reason.as_str()),
        (Phase::Stopped, "node one is gone from the cluster")
    );
}

#[test]
fn deleting_the_object_stops_in_good_order_first() {
    let mut world = World::running();
    world.workspace.metadata.deletion_timestamp = Some(stamp(world.now));
    world.settle();
    assert_eq!(world.status().phase, Phase::Stopping);
    assert!(world.workspace.metadata.finalizers.is_some());
    let attempt = world.status().attempt;
    world.yes(ConditionType::DiskSafe, attempt);
    world.settle();
    assert_eq!(world.status().phase, Phase::Stopped);
    assert!(world.workspace.metadata.finalizers.is_some(), "the pod is still there");
    world.pods.clear();
    assert!(matches!(&world.settle()[..], [Action::ReleaseWorkspace { .. }]));
}

#[test]
fn a_stopped_object_goes_after_a_day() {
    let mut world = World::running();
    world.condition(ConditionType::StoppedByRequest, ConditionStatus::True, 0, "");
    world.settle();
    world.node_stops();
    world.pass(86_399);
    assert!(world.settle().is_empty());
    world.pass(1);
    assert!(matches!(&world.settle()[..], [Action::DeleteWorkspace, Action::ReleaseWorkspace { .. }]));
}

#[test]
fn aborting_is_quick() {
    let mut world = World::running();
    world.yes(ConditionType::Aborted, 0);
    assert!(matches!(&world.settle()[..], [Action::DeletePod { grace_seconds: Some(1), .. }]));
    world.condition(ConditionType::DiskFailed, ConditionStatus::True, 1, "busy");
    world.settle();
    assert_eq!(world.status().phase, Phase::Stopped);
    assert!(!world.is(ConditionType::Failed), "nobody wants that disk");
}

#[test]
fn a_disk_that_does_not_come_to_rest_is_told() {
    let mut world = World::running();
    world.condition(ConditionType::StoppedByRequest, ConditionStatus::True, 0, "");
    world.settle();
    world.condition(ConditionType::DiskFailed, ConditionStatus::True, 1, "the file system has errors");
    world.settle();
    assert_eq!(world.status().phase, Phase::Stopped);
    assert!(world.is(ConditionType::Failed) && world.status().reason.contains("the file system has errors"));
}

#[test]
fn inactivity_warns_then_stops_and_activity_takes_the_warning_back() {
    let mut world = World::running();
    assert_eq!(world.next, Some(world.now + TimeDelta::minutes(25)));
    world.pass(25 * 60);
    world.settle();
    let warning = world.status().condition(ConditionType::TimeoutWarning).unwrap().message.clone();
    assert_eq!(warning, "the workspace stops at 10:30:00 UTC unless it is used");
    assert_eq!(world.status().phase, Phase::Running);
    let writes = world.writes;
    world.pass(60);
    world.settle();
    assert_eq!(world.writes, writes, "the warning is written once");

    world.workspace.status.as_mut().unwrap().last_activity = Some(time::text(world.now));
    world.settle();
    assert!(!world.is(ConditionType::TimeoutWarning));
    world.pass(30 * 60);
    world.settle();
    let status = world.status();
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Stopping, "stopped after 30 minutes without activity"));
    world.node_stops();
    assert!(!world.is(ConditionType::Failed));
}

#[test]
fn timeouts_by_table() {
    // (inactivity, lifetime, default lifetime, minutes since start, minutes since activity) -> reason
    let table = [
        (None, None, 0, 29, None, ""),
        (None, None, 0, 31, None, "stopped after 30 minutes without activity"),
        (None, None, 0, 31, Some(5), ""),
        (Some(0), None, 0, 10_000, None, ""),
        (Some(120), None, 0, 2, None, "stopped after 2 minutes without activity"),
        (Some(0), Some(3600), 0, 59, Some(1), ""),
        (Some(0), Some(3600), 0, 60, Some(1), "stopped after running for 1 hour, the longest time allowed"),
        (None, None, 3600, 60, Some(1), "stopped after running for 1 hour, the longest time allowed"),
        (None, Some(0), 3600, 60, Some(1), ""),
        // Activity from before the start (a clock that jumped) does not count against the user.
        (None, None, 0, 20, Some(300), ""),
    ];
    for row in table {
        let (inactivity_seconds, max_lifetime_seconds, default, started, active, reason) = row;
        let mut world = World::running();
        world.policy.max_lifetime_seconds = default;
        world.workspace.spec.timeouts = Timeouts { inactivity_seconds, max_lifetime_seconds };
        world.pass(started * 60);
        let active = active.map(|minutes| time::text(world.now - TimeDelta::minutes(minutes)));
        world.workspace.status.as_mut().unwrap().last_activity = active;
        world.settle();
        assert_eq!(world.status().reason, reason, "{row:?}");
    }
}

#[test]
fn a_start_that_takes_too_long_names_its_step() {
    let mut world = World::new();
    world.settle();
    world.workspace.status.as_mut().unwrap().steps = vec![berth_workspace_crd::Step {
        name: "image".into(),
        started_at: time::text(world.now),
        duration_micros: None,
        detail: "pulling 12 of 80 MB".into(),
        phases: Vec::new(),
    }];
    world.pass(3600);
    world.settle();
    let reason = world.status().reason;
    assert_eq!(reason, "the workspace did not start within 1 hour: it was still in step image (pulling 12 of 80 MB)");
    assert_eq!(world.status().phase, Phase::Stopping);
}

#[test]
fn a_node_that_never_confirms_a_stop_does_not_hold_the_user_for_ever() {
    let mut world = World::running();
    world.condition(ConditionType::StoppedByRequest, ConditionStatus::True, 0, "");
    world.settle();
    assert_eq!(world.next, Some(world.now + TimeDelta::hours(1)));
    world.pass(3600);
    world.settle();
    assert_eq!(world.status().phase, Phase::Stopped);
    assert!(world.status().reason.contains("one did not confirm"), "{}", world.status().reason);
}

#[test]
fn a_pod_that_a_dead_controller_made_is_taken_over() {
    let mut world = World::new();
    world.act(&Action::CreatePod { attempt: 1, node: Some("one".into()) });
    assert!(world.settle().is_empty());
    assert_eq!((world.status().attempt, world.status().phase), (1, Phase::Creating));
}

#[test]
fn a_pod_of_an_older_attempt_is_removed() {
    let mut world = World::new();
    world.act(&Action::CreatePod { attempt: 1, node: Some("one".into()) });
    world.act(&Action::CreatePod { attempt: 2, node: Some("one".into()) });
    let done = world.settle();
    assert!(matches!(&done[..], [Action::DeletePod { name, .. }] if name.ends_with("-1")), "{done:?}");
    assert_eq!(world.status().attempt, 2);
}

#[test]
fn billing_ends_when_the_container_did() {
    let mut world = World::running();
    world.pass(600);
    world.condition(ConditionType::ContainerRunning, ConditionStatus::False, 1, "");
    world.exit(137, "NodeRestarted");
    world.pass(7200);
    world.settle();
    world.yes(ConditionType::DiskSafe, 1);
    world.settle();
    assert_eq!(world.status().stopped_at.as_deref(), Some("2026-11-23T10:10:00.000Z"));
}

#[test]
fn the_pod() {
    let pod = pod::desired(&workspace(), &class(), 1, Some("one"), "base:1", 10);
    insta::assert_yaml_snapshot!(pod);
}
