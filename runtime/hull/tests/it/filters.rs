//! Compiled seccomp programs beside the records: used again, and only when nobody else could have put them there.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, bundle, text};

/// Forbids to make folders; the script says whether one was made.
fn filtered(name: &str) -> Option<Bundle> {
    let mut b = bundle(name, "busybox mkdir /tmp/made 2>/dev/null; ls /tmp")?;
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    b.spec.linux.get_or_insert_default().seccomp = Some(serde_json::from_str(profile).unwrap());
    b.write();
    Some(b)
}

/// Runs the container, which must have made nothing.
fn run(b: &Bundle) {
    let output = b.hull(&["run", &b.id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

fn written(file: &Path) -> (i64, i64) {
    let metadata = file.metadata().unwrap();
    (metadata.ctime(), metadata.ctime_nsec())
}

#[test]
fn a_program_is_compiled_once() {
    let Some(b) = filtered("filter-once") else { return };
    run(&b);
    let folder = b.records().join(".seccomp");
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let file = only_file(&folder);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let first = written(&file);
    run(&b);
    assert_eq!(written(&file), first, "it was compiled again");
    let ids = b.hull(&["list", "--quiet"]);
    assert_eq!(text(&ids.stdout), "", "the cache is taken for a container");
}

#[test]
fn a_program_that_others_could_have_written_is_not_used() {
    let Some(b) = filtered("filter-foreign") else { return };
    run(&b);
    let folder = b.records().join(".seccomp");
    let file = only_file(&folder);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    run(&b);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "it was believed");
    // In a folder of others' nothing is read, nor written.
    fs::write(&file, "planted").unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    run(&b);
    assert_eq!(fs::read(&file).unwrap(), b"planted");
}
