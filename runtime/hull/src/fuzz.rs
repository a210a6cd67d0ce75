//! Entry points for fuzzers: all code that reads bytes from outside, up to the first system call that would follow.
//!
//! Hidden from the documentation and no part of the public interface. `runtime/fuzz` drives it with libFuzzer; the tests below drive it on a
//! stable compiler, with mutations of the same examples.

use crate::cgroup::{devices, systemd};
use crate::container::{bundle, store::State};
use crate::error::Error;
use crate::process::{caps, landlock, limits};
use crate::rootfs::{options, resolve};
use crate::spec::{Mount, Resources, Seccomp, Spec};

/// A target: accepts any bytes, and panics if something is wrong.
pub type Target = fn(&[u8]);

/// All targets by the names that `runtime/fuzz` has for them.
pub const TARGETS: &[(&str, Target)] = &[
    ("spec", spec),
    ("state", state),
    ("seccomp", seccomp),
    ("mount_options", mount_options),
    ("wire", wire),
    ("command_line", command_line),
];

/// Parses what was serialised again: nothing may be lost or changed on the way.
#[expect(clippy::panic, reason = "a fuzz target reports by panicking")]
fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) {
    let Ok(first) = serde_json::to_vec(value) else { return };
    match serde_json::from_slice::<T>(&first) {
        Ok(again) => assert_eq!(serde_json::to_vec(&again).ok().as_deref(), Some(first.as_slice())),
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&first)),
    }
}

/// `config.json`: what `create` does with it before it makes anything.
pub fn spec(bytes: &[u8]) {
    let Ok(spec) = crate::spec::from_slice::<Spec>(bytes) else { return };
    round_trip(&spec);
    let _ = bundle::check(&spec);
    for mount in &spec.mounts {
        check_mount(mount);
    }
    if let Some(process) = &spec.process {
        caps::resolve(process.capabilities.as_ref());
        let _ = process.scheduler.as_ref().map(limits::scheduler);
        let _ = process.io_priority.as_ref().map(limits::io_priority);
        let _ = limits::exec_affinity(process.exec_cpu_affinity.as_ref());
    }
    if let Some(text) = spec.annotations.get(landlock::ANNOTATION) {
        let _ = landlock::Rules::parse(text);
    }
    let Some(linux) = &spec.linux else { return };
    let _ = linux.memory_policy.as_ref().map(limits::memory_policy);
    let _ = linux.personality.as_ref().map(limits::personality);
    let _ = systemd::plan(linux.cgroups_path.as_deref(), "fuzz");
    for path in linux.masked_paths.iter().chain(&linux.readonly_paths) {
        check_path(path);
    }
    check_devices(&linux.resources.clone().unwrap_or_default());
    if let Some(seccomp) = &linux.seccomp {
        compile(seccomp);
    }
}

/// A path is clean once it was cleaned, and stays below the root.
fn check_path(path: &str) {
    let clean = resolve::clean(path);
    assert_eq!(resolve::clean(&clean), clean, "{path:?}");
    assert!(!clean.split('/').any(|part| part == ".."), "{path:?} -> {clean:?}");
}

fn check_devices(resources: &Resources) {
    if let Ok(rules) = devices::rules(&resources.devices) {
        devices::assemble(&rules);
    }
}

/// A state file.
pub fn state(bytes: &[u8]) {
    let Ok(state) = crate::spec::from_slice::<State>(bytes) else { return };
    round_trip(&state);
}

/// A seccomp profile.
pub fn seccomp(bytes: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<Seccomp>(bytes) else { return };
    round_trip(&profile);
    compile(&profile);
}

fn compile(profile: &Seccomp) {
    if let Ok(program) = crate::seccomp::compile(profile) {
        // Options that the kernel would refuse must not come out.
        assert!(!program.instructions.is_empty() && program.instructions.len() <= crate::seccomp::MAX_INSTRUCTIONS);
    }
}

/// The options of one mount, separated by commas.
pub fn mount_options(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (kind, list) = text.split_once(';').unwrap_or(("bind", text));
    check_mount(&Mount {
        destination: "/mnt".to_owned(),
        r#type: Some(kind.to_owned()),
        source: Some("/source".to_owned()),
        options: list.split(',').map(str::to_owned).collect(),
        ..Mount::default()
    });
}

fn check_mount(mount: &Mount) {
    check_path(&mount.destination);
    let _ = options::parse(mount);
}

/// An error as the container's process sends it to the runtime.
pub fn wire(bytes: &[u8]) {
    let error = Error::from_wire(bytes);
    let again = Error::from_wire(&error.to_wire());
    assert_eq!(again.code(), error.code());
    assert_eq!(again.errno(), error.errno());
}

/// A command line, words separated by null bytes.
pub fn command_line(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let words: Vec<String> = text.split('\0').map(str::to_owned).collect();
    crate::cli::parse_only(&words);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::seccomp::tests::random::Random;

    /// Pieces that parsers stumble over.
    const PIECES: &[&str] = &[
        "null",
        "-1",
        "0",
        "1e999",
        "18446744073709551615",
        "18446744073709551616",
        "4294967295",
        "-9223372036854775808",
        "\"\"",
        "\"\\u0000\"",
        "[]",
        "{}",
        "[[[[",
        "\"/\"",
        "\"../..\"",
        "\"SCMP_ACT_NOTIFY\"",
        "\"SCMP_CMP_MASKED_EQ\"",
        "\"0-65536\"",
        "\"0-0,1-\"",
        ",",
        ":",
        "=",
        "\u{e4}",
        "true",
        "\"a\"",
        "rbind",
        "size=",
        "idmap=uids=0-1-2#",
        "--",
        "-",
    ];

    /// Duration in an ordinary test run; `HULL_FUZZ_SECONDS` sets a longer one.
    fn time() -> Duration {
        let seconds = std::env::var("HULL_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
        seconds.map_or(Duration::from_millis(500), Duration::from_secs)
    }

    fn change(random: &mut Random, examples: &[Vec<u8>], bytes: &mut Vec<u8>) {
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(32)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..to)),
            2 => drop(bytes.splice(at..to, random.pick(PIECES).bytes())),
            3 => drop(bytes.splice(at..at, random.pick(PIECES).bytes())),
            4 => {
                let copy: Vec<u8> = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let other = random.pick(examples);
                let from = random.below(other.len() + 1);
                let end = (from + random.below(200)).min(other.len());
                bytes.splice(at..to, other[from..end].iter().copied());
            }
            // A value in the text is replaced by another, so that the whole still parses.
            _ => {
                let stops = |b: &u8| matches!(b, b',' | b'}' | b']' | b'\0' | b';');
                let start =
                    bytes[..at].iter().rposition(|b| matches!(b, b':' | b'[' | b',' | b'=')).map_or(0, |p| p + 1);
                let end = bytes[start..].iter().position(stops).map_or(bytes.len(), |p| start + p);
                bytes.splice(start..end, random.pick(PIECES).bytes());
            }
        }
    }

    fn drive(name: &str, target: Target) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/").to_owned() + name;
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let examples: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        examples.iter().for_each(|example| target(example));
        let seed = std::env::var("HULL_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let mut random = Random(seed);
        let end = Instant::now() + time();
        let mut runs = 0;
        while Instant::now() < end {
            let mut bytes = random.pick(&examples).clone();
            for _ in 0..=random.below(6) {
                change(&mut random, &examples, &mut bytes);
            }
            let result = std::panic::catch_unwind(|| target(&bytes));
            assert!(result.is_ok(), "{name}, run {runs} of seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
            runs += 1;
        }
        assert!(runs > 0);
    }

    #[test]
    fn no_input_makes_a_parser_panic() {
        std::thread::scope(|scope| {
            for (name, target) in TARGETS {
                scope.spawn(|| drive(name, *target));
            }
        });
    }
}
