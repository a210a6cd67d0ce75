//! Files and logs.

use std::sync::atomic::Ordering;

use berth_api_types::public::Phase;
use http_body_util::BodyExt as _;
use reqwest::Method;

use crate::peers::World;

#[tokio::test]
async fn files_go_out_as_tar() {
    let world = World::new(Phase::Running).await;
    let answer = world.http(Method::GET, "/files?path=/file").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-tar");
    assert_eq!(answer.text().await.unwrap(), "tar of /file");
    let missing = world.http(Method::GET, "/files?path=/nothing").send().await.unwrap();
    assert_eq!(missing.status(), 404);
    let problem: serde_json::Value = missing.json().await.unwrap();
    assert_eq!(problem["detail"], "there is nothing at /nothing");
}

#[tokio::test]
async fn files_that_cannot_be_read_are_told_in_a_trailer_or_break_the_stream() {
    let world = World::new(Phase::Running).await;
    let folder = || world.http(Method::GET, "/files?path=/folder");
    let answer = folder().header("te", "trailers").send().await.unwrap();
    assert_eq!(answer.headers()["trailer"], "berth-incomplete");
    let body = http::Response::from(answer).into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["berth-incomplete"], "1 of the files could not be read");
    assert_eq!(body.to_bytes(), "tar of /folder");
    let whole = async { folder().send().await?.text().await };
    whole.await.unwrap_err();
}

#[tokio::test]
async fn files_come_in_as_cp_would_place_them() {
    let world = World::new(Phase::Running).await;
    for (path, place) in [("/folder", "/folder|"), ("", ".|"), ("/file", "/|file"), ("/new", "/|new"), ("/a/b", "/a|b")]
    {
        let body = reqwest::Body::from(path.as_bytes().repeat(100_000));
        let answer = world.http(Method::PUT, &format!("/files?path={path}")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{path}");
        let files = world.peers.files.lock().unwrap();
        assert_eq!(files.get(place).map(Vec::len), Some(path.len() * 100_000), "{path}: {:?}", files.keys());
    }
    let answer = world.http(Method::PUT, "/files?path=/none/").body("x").send().await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn logs_are_there_after_the_end_too() {
    let world = World::new(Phase::Stopped).await;
    let answer = world.http(Method::GET, "/logs?follow=true&tail=5").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    // What the node says has one line: its last five are all of it.
    let whole = format!("log of /internal/instances/{}/logs?follow=false\n", world.peers.instance);
    let expected =
        format!("log of /internal/instances/{}/logs?follow=true&tail={}\n", world.peers.instance, whole.len());
    assert_eq!(text, expected);
}

#[tokio::test]
async fn the_log_of_a_start_that_has_just_begun_is_waited_for_when_it_is_followed() {
    let world = World::new(Phase::Pending).await;
    let at_once = world.http(Method::GET, "/logs").send().await.unwrap();
    assert_eq!(at_once.status(), 404);
    let problem: serde_json::Value = at_once.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("following it waits"), "{problem}");
    for tail in ["", "&tail=1"] {
        world.set(Phase::Pending, "");
        let asked = world.peers.logs_asked.load(Ordering::SeqCst);
        let follow = world.http(Method::GET, &format!("/logs?follow=true{tail}")).send();
        let (answer, ()) = tokio::join!(follow, async {
            while world.peers.logs_asked.load(Ordering::SeqCst) == asked {
                tokio::task::yield_now().await;
            }
            world.set(Phase::Creating, "");
            world.set(Phase::Initializing, "");
        });
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().starts_with("log of "));
    }
}
