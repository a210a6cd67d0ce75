//! Compiled modules: made once, believed only from where no container can write.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use hull_wasm_containers::guests::{self, KINDS};
use hull_wasm_containers::{Bundle, finish, hull_wasm, ready};

#[test]
fn the_second_start_finds_what_the_first_compiled() {
    if !ready() {
        return;
    }
    for kind in KINDS {
        let bundle = Bundle::new(&guests::tool(kind), &["args"]);
        bundle.prints("[/app.wasm][args]");
        assert!(bundle.phase("wasm-compiled") && !bundle.phase("wasm-found"));
        let files = bundle.cached();
        assert_eq!(files.len(), 1, "{files:?}");
        let first = files[0].metadata().unwrap();
        assert_eq!((first.uid(), first.mode() & 0o7777), (0, 0o600));
        bundle.prints("[/app.wasm][args]");
        assert!(bundle.phase("wasm-found") && !bundle.phase("wasm-compiled"));
        assert_eq!(bundle.cached(), files);
        assert_eq!(files[0].metadata().unwrap().ino(), first.ino());
    }
}

/// The compiled form of one module under the name, and with the digest, of another: only who may write to the cache
/// can do this. That it is run shows that containers do use the cache.
#[test]
fn containers_run_the_compiled_form() {
    if !ready() {
        return;
    }
    let other = Bundle::new(&guests::says("other"), &[]);
    other.prints("other");
    let module = guests::says("hello");
    let bundle = Bundle::new(&module, &[]);
    bundle.prints("hello");
    let mut content = std::fs::read(&other.cached()[0]).unwrap();
    let at = content.len() - 72;
    content[at..at + 32].copy_from_slice(&Sha256::digest(&module));
    replace(&bundle.cached()[0], &content);
    bundle.prints("other");
}

#[test]
fn what_is_odd_in_the_cache_is_made_anew() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(&guests::says("hello"), &[]);
    bundle.prints("hello");
    let file = bundle.cached().remove(0);
    let good = std::fs::read(&file).unwrap();
    let mut changed = good.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let other = Bundle::new(&guests::says("other"), &[]);
    other.prints("other");
    let foreign = std::fs::read(&other.cached()[0]).unwrap();
    for (what, bad) in [("changed", &changed[..]), ("torn", &good[..middle]), ("empty", &[]), ("foreign", &foreign)] {
        replace(&file, bad);
        bundle.prints("hello");
        assert!(bundle.phase("wasm-compiled"), "{what}");
        assert!(std::fs::read(&file).unwrap() == good, "{what}");
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    bundle.prints("hello");
    assert!(bundle.phase("wasm-compiled"), "writable by others");
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
    bundle.prints("hello");
    assert!(bundle.phase("wasm-compiled"), "of another user");
    assert_eq!(file.metadata().unwrap().uid(), 0);
}

#[test]
fn a_directory_that_others_write_to_is_not_used() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(&guests::says("hello"), &[]);
    std::fs::create_dir(bundle.path("cache")).unwrap();
    std::fs::set_permissions(bundle.path("cache"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = bundle.run();
    assert_eq!((output.code, output.stdout.as_str()), (0, "hello"), "{output:?}");
    assert!(output.stderr.contains("writable by nobody else"), "{output:?}");
    assert_eq!(bundle.cached(), Vec::<std::path::PathBuf>::new());
}

/// While it compiles: no user, no capabilities, a filter, and nothing open but the way for its answer.
#[test]
fn the_compiler_has_no_rights() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("large.wasm");
    std::fs::write(&module, guests::large(2000)).unwrap();
    let (answer, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut helper = Command::new(hull_wasm());
    helper.arg("cache").arg(folder.path().join("cache"));
    helper.stdin(std::fs::File::open(&module).unwrap()).stdout(std::os::fd::OwnedFd::from(theirs));
    let mut child = helper.spawn().unwrap();
    let pid = child.id();
    let seen =
        std::iter::from_fn(|| child.try_wait().unwrap().is_none().then(|| compiler_of(pid))).find_map(|seen| seen);
    let (status, files) = seen.expect("the compilation was seen before it ended");
    let has = |line: &str| status.lines().any(|l| l.split_whitespace().eq(line.split_whitespace()));
    for line in [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65534 65534 65534 65534",
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
    ] {
        assert!(has(line), "{line} is not in {status}");
    }
    assert!(files.iter().all(|target| target.starts_with("pipe:")), "{files:?}");
    assert!(child.wait().unwrap().success());
    let mut said = [0; 1];
    (&answer).read_exact(&mut said).unwrap();
    assert_eq!(&said, b"C");
}

/// Status and open files of a process's child, once it has its filter.
fn compiler_of(parent: u32) -> Option<(String, Vec<String>)> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_whitespace().next()?;
    let status = std::fs::read_to_string(format!("/proc/{child}/status")).ok()?;
    let entries = std::fs::read_dir(format!("/proc/{child}/fd")).ok()?;
    let files = entries.map_while(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()));
    let files = files.collect();
    status.contains("Seccomp:\t2").then_some((status, files))
}

#[test]
fn without_a_cache_the_container_compiles() {
    if !ready() {
        return;
    }
    let mut bundle = Bundle::new(&guests::says("hello"), &[]);
    bundle.administrator["cache"] = json!("");
    bundle.prints("hello");
    assert!(!bundle.phase("wasm-found") && !bundle.phase("wasm-compiled"));
}

#[test]
fn a_module_that_changes_before_the_start_is_the_one_that_runs() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(&guests::says("before"), &[]);
    let mut create = bundle.hull();
    create.arg("create").arg("--bundle").arg(bundle.path("")).arg(&bundle.id);
    let mut child = create.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    bundle.module(&guests::says("after"));
    assert_eq!(finish(bundle.hull().args(["start", &bundle.id])).code, 0);
    let mut output = String::new();
    // Until the container's process, which has the pipe's other end, is gone.
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(output, "after");
}

fn replace(path: &Path, content: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
