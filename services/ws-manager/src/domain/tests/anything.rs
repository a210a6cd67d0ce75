//! Whatever comes in whatever order: an instance that was ready is never started anew, phases never lead back within an attempt, what
//! failed stays failed with its first reason, and a stop always comes to its end.
use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Event {
    Ready,
    Container(bool),
    Content(bool),
    DiskSafe,
    Reject,
    PodGone,
    PodDeleted,
    Exit(i32),
    Evicted,
    NodeGone,
    NodeBack,
    StopAsked,
    Wait(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Ready),
        Just(Event::Ready),
        any::<bool>().prop_map(Event::Container),
        any::<bool>().prop_map(Event::Content),
        Just(Event::DiskSafe),
        Just(Event::Reject),
        Just(Event::PodGone),
        Just(Event::PodDeleted),
        (0..256_i32).prop_map(Event::Exit),
        Just(Event::Evicted),
        Just(Event::NodeGone),
        Just(Event::NodeBack),
        Just(Event::StopAsked),
        (1..4000_i64).prop_map(Event::Wait),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let attempt = world.status().attempt;
    let has_pod = !world.pods.is_empty();
    let is = |yes: bool| if yes { ConditionStatus::True } else { ConditionStatus::False };
    match event {
        Event::Ready if has_pod => world.ready(),
        Event::Container(yes) => world.condition(ConditionType::ContainerRunning, is(*yes), attempt, "container"),
        Event::Content(yes) => world.condition(ConditionType::ContentReady, is(*yes), attempt, "content"),
        Event::DiskSafe => world.yes(ConditionType::DiskSafe, attempt),
        Event::Reject => world.yes(ConditionType::PodRejected, attempt),
        Event::PodGone => world.pods.clear(),
        Event::PodDeleted if has_pod => {
            let now = stamp(world.now);
            world.pod(|pod| pod.metadata.deletion_timestamp = Some(now));
        }
        Event::Exit(code) if has_pod => world.exit(*code, "Error"),
        Event::Evicted if has_pod => world.pod_status("Failed", "Evicted", ""),
        Event::NodeGone => world.nodes.clear(),
        Event::NodeBack => world.nodes = vec![node("one", true)],
        Event::StopAsked => world.condition(ConditionType::StoppedByRequest, ConditionStatus::True, 0, "asked"),
        Event::Wait(seconds) => world.pass(*seconds),
        _ => {}
    }
}

proptest! {
    #[test]
    fn invariants_hold(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        world.settle();
        for event in &events {
            let before = world.status();
            happen(&mut world, event);
            world.settle();
            let after = world.status();
            if before.phase == Phase::Stopped {
                prop_assert_eq!(&before.reason, &after.reason);
                prop_assert_eq!(after.phase, Phase::Stopped);
            }
            if before.attempt == after.attempt {
                prop_assert!(after.phase >= before.phase, "{:?} -> {:?} by {:?}", before.phase, after.phase, event);
            }
            if before.is(ConditionType::EverReady) {
                prop_assert_eq!(before.attempt, after.attempt);
                prop_assert!(after.is(ConditionType::EverReady));
                prop_assert_eq!(&before.started_at, &after.started_at);
            }
            if let Some(failed) = before.condition(ConditionType::Failed) {
                prop_assert_eq!(after.condition(ConditionType::Failed), Some(failed));
            }
            prop_assert_eq!(after.stopped_at.is_some(), after.phase == Phase::Stopped);
            if let (Some(started), Some(stopped)) = (&after.started_at, &after.stopped_at) {
                prop_assert!(started <= stopped);
            }
            // Nothing runs on behalf of what is over.
            if after.phase == Phase::Stopped {
                prop_assert!(world.pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()));
            }
            // What changes by itself has an alarm.
            if !matches!(after.phase, Phase::Running) || after.is(ConditionType::TimeoutWarning) {
                prop_assert!(world.next.is_some() || view_is_final(&world));
            }
        }
        world.condition(ConditionType::StoppedByRequest, ConditionStatus::True, 0, "asked");
        world.settle();
        if world.status().phase != Phase::Stopped {
            world.node_stops();
        }
        prop_assert_eq!(world.status().phase, Phase::Stopped);
    }
}

fn view_is_final(world: &World) -> bool {
    world.workspace.metadata.deletion_timestamp.is_some()
}
