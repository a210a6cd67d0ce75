//! The library, from a threaded process.

use std::io::Read as _;

use hull::spec::{Process, Resources, resources};
use hull::{Code, Runtime};

use crate::bundle::{Bundle, bundle};

fn runtime(b: &Bundle) -> Runtime {
    Runtime::new(env!("CARGO_BIN_EXE_hull")).root(b.records())
}

#[test]
fn create_start_exec_wait_delete() {
    let Some(b) = bundle("library", "cat; exit 4") else { return };
    let (input, input_end) = std::io::pipe().unwrap();
    let (mut output, output_end) = std::io::pipe().unwrap();
    let container = runtime(&b)
        .create(&b.id, b.path())
        .spec(b.spec.clone())
        .stdin(input.into())
        .stdout(output_end.into())
        .create()
        .unwrap();
    assert_eq!(container.state().unwrap().status, "created");
    let running = container.start().unwrap();
    let process =
        Process { args: vec!["/bin/sh".into(), "-c".into(), "exit 9".into()], cwd: "/".into(), ..Process::default() };
    assert_eq!(container.exec(process).spawn().unwrap().wait().unwrap(), 9);
    let limits = Resources { pids: Some(resources::Pids { limit: Some(33) }), ..Resources::default() };
    container.update(&limits).unwrap();
    assert_eq!(container.stats().unwrap()["data"]["pids"]["limit"], 33);
    std::io::Write::write_all(&mut &input_end, b"through the container").unwrap();
    drop(input_end);
    running.wait().unwrap();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "through the container");
    container.delete(true).unwrap();
    assert_eq!(container.state().unwrap_err().code(), Code::NotFound);
}

#[test]
fn errors_come_as_values() {
    let Some(mut b) = bundle("library-error", "true") else { return };
    b.spec.mounts.push(hull::spec::Mount {
        destination: "/x".into(),
        r#type: Some("bind".into()),
        source: Some("/no/such/source".into()),
        ..hull::spec::Mount::default()
    });
    let error = runtime(&b).create(&b.id, b.path()).spec(b.spec.clone()).create().unwrap_err();
    assert_eq!(error.code(), Code::MountSource);
    assert_eq!(error.errno(), Some(rustix::io::Errno::NOENT));
    assert!(error.advice().contains("/no"), "{error}");
}

#[test]
fn many_at_a_time_from_many_threads() {
    let Some(_) = bundle("threads", "true") else { return };
    std::thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || {
                let Some(b) = bundle(&format!("thread{n}"), "true") else { return };
                let container = runtime(&b).create(&b.id, b.path()).spec(b.spec.clone()).create().unwrap();
                container.start().unwrap().wait().unwrap();
                container.delete(true).unwrap();
            });
        }
    });
}
