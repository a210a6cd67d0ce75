//! The library, from a threaded process.

use std::io::Read as _;

use hull::spec::{Capabilities, Process, Resources, resources};
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
    assert_eq!(running.wait().unwrap(), Some(4));
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "through the container");
    container.delete(true).unwrap();
    assert_eq!(container.state().unwrap_err().code(), Code::NotFound);
}

/// Ambient and inheritable capabilities too would be those of every program that the process starts (CVE-2025-27612).
#[test]
fn exec_sets_each_of_the_five_capability_sets() {
    let Some((_b, container)) = running("library-capabilities") else { return };
    let of = |bounding: &[&str], effective: &[&str], permitted: &[&str], inheritable: &[&str], ambient: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let mut process = shell("while read k v; do case $k in Cap*) echo $k $v;; esac; done < /proc/self/status");
        process.capabilities = Some(Capabilities {
            bounding: list(bounding),
            effective: list(effective),
            permitted: list(permitted),
            inheritable: list(inheritable),
            ambient: list(ambient),
        });
        let (mut output, end) = std::io::pipe().unwrap();
        assert_eq!(container.exec(process).stdout(end.into()).spawn().unwrap().wait().unwrap(), 0);
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        let set = |name: &str| {
            let line = said.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        ["CapBnd:", "CapEff:", "CapPrm:", "CapInh:", "CapAmb:"].map(set)
    };
    let (chown, kill) = (1 << 0, 1 << 5);
    let both = ["CAP_CHOWN", "CAP_KILL"];
    assert_eq!(of(&both, &both, &both, &[], &[]), [chown | kill, chown | kill, chown | kill, 0, 0]);
    assert_eq!(of(&both, &[], &both, &["CAP_KILL"], &["CAP_KILL"])[3..], [kill, kill]);
    assert_eq!(of(&[], &[], &[], &[], &[]), [0; 5]);
}

/// What the runtime warns of is no failure of the program's, and async code waits for a descriptor.
#[test]
fn a_status_of_255_is_the_programs_own() {
    let Some((_b, container)) = running("library-255") else { return };
    let mut process = shell("exit 255");
    let unknown = Capabilities { bounding: vec!["CAP_NONE".into()], ..Capabilities::default() };
    process.capabilities = Some(unknown);
    let executing = container.exec(process.clone()).spawn().unwrap();
    let pidfd = executing.pidfd();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None).unwrap();
    assert_eq!(executing.wait().unwrap(), 255);
    process.args = vec!["/no/such/program".into()];
    assert_eq!(container.exec(process).spawn().unwrap().wait().unwrap_err().code(), Code::Exec);
}

#[test]
fn a_terminal_is_given_to_who_execs() {
    let Some((b, container)) = running("library-terminal") else { return };
    let socket = b.path().join("console");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let process = Process { terminal: true, ..shell("test -t 0 && exit 3") };
    let executing = container.exec(process).console_socket(&socket).spawn().unwrap();
    let (_connection, _) = listener.accept().unwrap();
    assert_eq!(executing.wait().unwrap(), 3);
    assert_eq!(container.processes().unwrap().first().copied(), Some(container.running().unwrap().pid()));
}

/// One that changes the program, by an annotation.
struct Wrapper;

impl hull::Executor for Wrapper {
    fn takes(&self, spec: &hull::spec::Spec) -> bool {
        spec.annotations.contains_key("test.wrapper")
    }

    fn prepare(&self, spec: &mut hull::spec::Spec) -> hull::Result<()> {
        let process = spec.process.as_mut().ok_or_else(|| hull::Error::new(Code::ConfigInvalid, "process"))?;
        process.args.splice(0..0, ["/bin/echo".to_owned(), "wrapped".to_owned()]);
        Ok(())
    }
}

#[test]
fn a_container_runs_what_its_executor_makes_of_it() {
    let Some(mut b) = bundle("library-executor", "true") else { return };
    for (annotated, expected) in [(true, "wrapped /bin/sh -c true"), (false, "")] {
        b.spec.annotations.retain(|_, _| false);
        if annotated {
            b.spec.annotations.insert("test.wrapper".into(), String::new());
        }
        let (mut output, end) = std::io::pipe().unwrap();
        let builder = runtime(&b).create(&b.id, b.path()).spec(b.spec.clone()).stdout(end.into());
        let container = builder.executors(&[&Wrapper]).unwrap().create().unwrap();
        assert_eq!(runtime(&b).list().unwrap().iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), [b.id.as_str()]);
        container.start().unwrap().wait().unwrap();
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert_eq!(said.trim(), expected);
        container.delete(true).unwrap();
    }
}

#[test]
fn executors_need_a_configuration_to_change() {
    let builder = hull::Runtime::new("/usr/bin/hull").create("none", "/nonexistent");
    let error = builder.executors(&[&Wrapper]).unwrap_err();
    assert_eq!((error.code(), error.object()), (Code::ConfigInvalid, "spec"));
}

#[test]
fn nothing_is_listed_where_nothing_was_created() {
    let Some(b) = bundle("library-list", "true") else { return };
    let root = b.path().join("no-records-yet");
    assert_eq!(runtime(&b).root(&root).list().unwrap(), []);
    std::fs::write(&root, "").unwrap();
    assert_eq!(runtime(&b).root(&root).list().unwrap_err().code(), Code::StateFile);
}

#[test]
fn signals_end_it() {
    let Some((_b, container)) = running("library-signal") else { return };
    let process = container.running().unwrap();
    container.signal(9).unwrap();
    // The caller is not its parent: its status is known where the kernel tells it.
    assert!(matches!(process.wait().unwrap(), None | Some(137)));
    assert_eq!(container.signal(9).unwrap_err().code(), Code::WrongState);
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
    assert_eq!((error.code(), error.object()), (Code::MountSource, "/no/such/source"));
    assert_eq!(error.errno(), Some(rustix::io::Errno::NOENT));
    assert!(error.advice().contains("/no"), "{error}");
    // The message is the one that the program logged, once.
    assert_eq!(
        error.to_string(),
        "cannot open mount source /no/such/source: no such file or directory (/no: no such file or directory)"
    );
    b.spec.mounts.clear();
    b.spec.oci_version = "2.0.0".into();
    let error = runtime(&b).create(&b.id, b.path()).spec(b.spec.clone()).create().unwrap_err();
    assert_eq!(error.object(), "ociVersion");
    assert_eq!(error.to_string(), "invalid configuration: ociVersion \"2.0.0\": this runtime follows 1.x.y");
}

/// As many threads as an async runtime has for such work, each with a container and its processes, and others that hold
/// the allocator's and their own locks all the time: a copy of this process would find them locked for ever.
#[test]
fn many_at_a_time_from_many_threads() {
    let Some(_) = bundle("threads", "true") else { return };
    let over = std::sync::atomic::AtomicBool::new(false);
    let held = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let noise = || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                *held.lock().unwrap() = vec![0u8; 5000];
            }
        };
        scope.spawn(noise);
        let one = |n| {
            let Some(b) = bundle(&format!("thread{n}"), "sleep 1000 & wait") else { return };
            let container = runtime(&b).create(&b.id, b.path()).spec(b.spec.clone()).create().unwrap();
            let running = container.start().unwrap();
            for status in [0, 7] {
                assert_eq!(container.exec(shell(&format!("exit {status}"))).spawn().unwrap().wait().unwrap(), status);
            }
            container.signal(9).unwrap();
            running.wait().unwrap();
            container.delete(true).unwrap();
        };
        let threads = [0, 1, 2, 3].map(|n| scope.spawn(move || one(n)));
        let ended = threads.map(std::thread::ScopedJoinHandle::join);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
}

/// What belongs to the whole process: working directory, umask, signal handling, environment, and children of this thread.
fn of_the_process() -> [String; 4] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines =
        status.lines().filter(|line| ["Umask", "SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name)));
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let environment: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    let directory = std::env::current_dir().unwrap().display().to_string();
    [lines.collect(), children, format!("{environment:?}"), directory]
}

/// Each container has its own streams, configuration and directory; the calling process lends and changes nothing.
#[test]
fn the_calling_process_stays_as_it_was() {
    let Some(first) = bundle("calling-first", "cat; pwd; umask") else { return };
    let Some(second) = bundle("calling-second", "cat; pwd; umask") else { return };
    let before = of_the_process();
    let mut made = Vec::new();
    for (b, cwd, umask) in [(&first, "/tmp", 0o027), (&second, "/etc", 0o077)] {
        let mut spec = b.spec.clone();
        let process = spec.process.as_mut().unwrap();
        process.cwd = cwd.into();
        process.user.umask = Some(umask);
        let (input, input_end) = std::io::pipe().unwrap();
        let (output, output_end) = std::io::pipe().unwrap();
        let builder = runtime(b).create(&b.id, b.path()).spec(spec).stdin(input.into()).stdout(output_end.into());
        made.push((builder.create().unwrap(), input_end, output));
    }
    let mut said = Vec::new();
    for (container, mut input, mut output) in made {
        let running = container.start().unwrap();
        std::io::Write::write_all(&mut input, format!("{} ", container.id().len()).as_bytes()).unwrap();
        drop(input);
        running.wait().unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        said.push(text);
        container.delete(true).unwrap();
    }
    let (a, b) = (first.id.len(), second.id.len());
    assert_eq!(said, [format!("{a} /tmp\n0027\n"), format!("{b} /etc\n0077\n")]);
    assert_eq!(of_the_process(), before);
}

/// A container that runs until it is killed.
fn running(name: &str) -> Option<(Bundle, hull::Container)> {
    let b = bundle(name, "sleep 1000 & wait")?;
    let container = runtime(&b).create(&b.id, b.path()).spec(b.spec.clone()).create().unwrap();
    container.start().unwrap();
    Some((b, container))
}

fn shell(script: &str) -> Process {
    Process { args: vec!["/bin/sh".into(), "-c".into(), script.into()], cwd: "/".into(), ..Process::default() }
}

#[test]
fn a_session_starts_processes_again_and_again() {
    let Some((_b, container)) = running("session") else { return };
    let session = container.exec_session().unwrap();
    for status in [0, 3, 0, 7] {
        assert_eq!(session.exec(shell(&format!("exit {status}"))).spawn().unwrap().wait().unwrap(), status);
    }
    let (mut output, end) = std::io::pipe().unwrap();
    session.exec(shell("echo $$ $(cat /proc/sys/kernel/hostname)")).stdout(end.into()).spawn().unwrap().wait().unwrap();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    // In the container's PID namespace its number is a small one.
    let pid: u32 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(pid > 1 && pid < 100, "{said}");
    assert!(said.ends_with("hull-test\n"), "{said}");
    let sleeper = session.exec(shell("exec sleep 1000")).spawn().unwrap();
    sleeper.signal(15).unwrap();
    assert_eq!(sleeper.wait().unwrap(), 128 + 15);
    let missing = session.exec(Process { args: vec!["/no/such".into()], cwd: "/".into(), ..Process::default() });
    assert_eq!(missing.spawn().unwrap_err().code(), Code::Exec);
    // A failure ends nothing but itself.
    assert_eq!(session.exec(shell("exit 5")).spawn().unwrap().wait().unwrap(), 5);
    let (input, end) = std::io::pipe().unwrap();
    let left = session.exec(shell("cat; exit 6")).stdin(input.into()).spawn().unwrap();
    drop(session);
    // It outlives the session, and its end is still told.
    drop(end);
    assert_eq!(left.wait().unwrap(), 6);
    container.delete(true).unwrap();
}

#[test]
fn a_session_ends_with_its_container() {
    let Some((_b, container)) = running("session-end") else { return };
    let session = container.exec_session().unwrap();
    assert_eq!(session.exec(shell("true")).spawn().unwrap().wait().unwrap(), 0);
    container.pause().unwrap();
    assert_eq!(session.exec(shell("true")).spawn().unwrap_err().code(), Code::WrongState);
    container.resume().unwrap();
    let process = session.exec(shell("sleep 1000")).spawn().unwrap();
    container.delete(true).unwrap();
    assert_eq!(process.wait().unwrap(), 128 + 9);
    assert_eq!(session.exec(shell("true")).spawn().unwrap_err().code(), Code::WrongState);
    assert_eq!(container.exec_session().unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_session_serves_many_threads_and_is_faster_than_exec() {
    let Some((_b, container)) = running("session-threads") else { return };
    let session = container.exec_session().unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let session = &session;
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(session.exec(shell(&format!("exit {n}"))).spawn().unwrap().wait().unwrap(), n);
                }
            });
        }
    });
    let program = Process { args: vec!["/bin/true".into()], cwd: "/".into(), ..Process::default() };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let start = std::time::Instant::now();
        assert_eq!(session.exec(program.clone()).spawn().unwrap().wait().unwrap(), 0);
        with.push(start.elapsed());
        let start = std::time::Instant::now();
        assert_eq!(container.exec(program.clone()).spawn().unwrap().wait().unwrap(), 0);
        without.push(start.elapsed());
    }
    with.sort();
    without.sort();
    println!("exec of true, p50 of 20: {:?} in a session, {:?} by a new runtime", with[10], without[10]);
    assert!(with[10] < without[10]);
    container.delete(true).unwrap();
}
