//! The cache returns what the compiler would, or the compiler is asked.

use std::os::unix::fs::PermissionsExt;

use super::{MOBY, profile};
use crate::seccomp::{Cache, CacheError, compile};

#[test]
fn a_second_start_reads_what_the_first_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seccomp");
    let cache = Cache::open(&path).unwrap();
    let seccomp = profile(MOBY);
    let fresh = compile(&seccomp).unwrap();
    assert_eq!(cache.compile(&seccomp).unwrap(), fresh);
    let slot = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
    assert_eq!(slot.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(cache.compile(&seccomp).unwrap(), fresh);

    // Another allow-all program under the same name is not taken for this profile's.
    let other = profile(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#);
    let elsewhere = tempfile::tempdir().unwrap();
    Cache::open(elsewhere.path()).unwrap().compile(&other).unwrap();
    let planted = std::fs::read_dir(elsewhere.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(planted, &slot).unwrap();
    assert_eq!(cache.compile(&seccomp).unwrap(), fresh);
}

#[test]
fn damaged_and_foreign_files_are_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let seccomp = profile(MOBY);
    let fresh = cache.compile(&seccomp).unwrap();
    let slot = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&slot).unwrap();
    for damage in [0, 9, good.len() / 2, good.len() - 20, good.len() - 1] {
        let mut bad = good.clone();
        bad[damage] ^= 1;
        std::fs::write(&slot, &bad).unwrap();
        assert_eq!(cache.compile(&seccomp).unwrap(), fresh);
        std::fs::write(&slot, &good[..damage]).unwrap();
        assert_eq!(cache.compile(&seccomp).unwrap(), fresh);
    }
    // Flip an instruction, mend nothing, and let others write: still not believed.
    std::fs::set_permissions(&slot, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(cache.compile(&seccomp).unwrap(), fresh);
    assert_eq!(slot.metadata().unwrap().permissions().mode() & 0o777, 0o600, "replaced by a file of our own");
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Cache::open(directory.path()), Err(CacheError::Foreign { .. })));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/tmp", &link).unwrap();
    assert!(matches!(Cache::open(&link), Err(CacheError::Open { .. })));
}

/// Prints what the cache saves; there is no bar, the compiler has one.
#[test]
fn the_cache_against_the_compiler() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let seccomp = profile(MOBY);
    let best = |run: &dyn Fn()| {
        let timed = |_| {
            let start = std::time::Instant::now();
            run();
            start.elapsed()
        };
        (0..50).map(timed).min().unwrap()
    };
    let compiled = best(&|| drop(compile(&seccomp).unwrap()));
    let cached = best(&|| drop(cache.compile(&seccomp).unwrap()));
    #[expect(clippy::print_stderr, reason = "the figure is quoted in the documentation")]
    {
        eprintln!("moby: compiled in {compiled:?}, read from the cache in {cached:?}");
    }
}
