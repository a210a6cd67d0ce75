//! What WebAssembly costs below hull: `make bench-wasm`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and has nobody to return an error to")]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hull_wasm_containers::guests::{self, KINDS, Kind};
use hull_wasm_containers::{Bundle, finish, hull_wasm, ready};
use serde_json::json;

const ROUNDS: usize = 50;
const BEGIN: &str = "<!-- bench-wasm -->\n";
const END: &str = "<!-- /bench-wasm -->";

/// One kind of container.
struct Subject {
    name: &'static str,
    bundle: Bundle,
    expected: &'static str,
    /// Whether it can be WebAssembly in three ways: compiled first, found, and without a cache.
    wasm: bool,
    times: [Vec<Duration>; 3],
}

fn main() {
    if !ready() {
        return;
    }
    let mut subjects = subjects();
    // One round to warm up what has nothing to do with it.
    for round in 0..=ROUNDS {
        for subject in &mut subjects {
            measure(subject, round > 0);
        }
    }
    let text = table(&subjects);
    println!("{text}");
    let mut args = std::env::args().skip_while(|arg| arg != "--write").skip(1);
    if let Some(path) = args.next() {
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        std::fs::write(path, format!("{before}{BEGIN}{text}{END}{after}")).unwrap();
    }
}

fn subjects() -> Vec<Subject> {
    let subject = |name, bundle, expected, wasm| Subject { name, bundle, expected, wasm, times: Default::default() };
    let mut native = Bundle::new(b"", &[]);
    native.busybox();
    native.process("/bin/busybox", &["echo", "hello"]);
    native.config["annotations"] = json!({});
    let mut looked_at = Bundle::new(b"", &[]);
    looked_at.busybox();
    looked_at.process("/bin/busybox", &["echo", "hello"]);
    looked_at.config["annotations"] = json!({"module.wasm.image/variant": "compat-smart"});
    let mut all = vec![
        subject("native (static busybox)", native, "hello\n", false),
        subject("native, annotated `compat-smart`", looked_at, "hello\n", false),
        subject("module of 0.2 KB", Bundle::new(&guests::says("hello"), &[]), "hello", true),
    ];
    for kind in KINDS {
        let name = if kind == Kind::Module { "C program, module" } else { "C program, component" };
        all.push(subject(name, Bundle::new(&guests::tool(kind), &["args"]), "[/app.wasm][args]", true));
    }
    all
}

fn measure(subject: &mut Subject, counts: bool) {
    let cache = subject.bundle.administrator["cache"].clone();
    let ways = if subject.wasm { 3 } else { 1 };
    for way in 0..ways {
        if way == 0 {
            let _ = std::fs::remove_dir_all(subject.bundle.path("cache"));
        }
        subject.bundle.administrator["cache"] = if way == 2 { json!("") } else { cache.clone() };
        let begin = Instant::now();
        let output = subject.bundle.run();
        let took = begin.elapsed();
        assert_eq!(output.stdout, subject.expected, "{output:?}");
        assert_eq!(subject.bundle.phase("wasm-found"), subject.wasm && way == 1);
        if counts {
            subject.times[way].push(took);
        }
    }
    subject.bundle.administrator["cache"] = cache;
}

fn cell(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
    match (at(50), at(95)) {
        (Some(half), Some(most)) => format!("{:.1} / {:.1}", half.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3),
        _ => "-".to_owned(),
    }
}

fn table(subjects: &[Subject]) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let cpus = std::thread::available_parallelism().unwrap();
    let mut text = format!(
        "Linux {}, {cpus} cores, {ROUNDS} rounds in turn. Times of `hull run` are p50 / p95, ms.\n\n\
         | | compiled module found | not there yet | compiled in the container |\n|---|---|---|---|\n",
        kernel.trim()
    );
    for subject in subjects {
        let [first, second, third] = &subject.times;
        // A native program has no module to be found.
        let (found, first) = if subject.wasm { (second, first.as_slice()) } else { (first, [].as_slice()) };
        text.push_str(&format!("| {} | {} | {} | {} |\n", subject.name, cell(found), cell(first), cell(third)));
    }
    let size = std::fs::metadata(hull_wasm()).unwrap().len();
    text.push_str("\n| what | figure |\n|---|---|\n");
    text.push_str(&format!("| `hull-wasm`, static, stripped | {:.1} MiB |\n", mib(size)));
    for kind in KINDS {
        let name = if kind == Kind::Module { "C program, module" } else { "C program, component" };
        let mut bundle = Bundle::new(&guests::tool(kind), &["spin"]);
        // The first to fill the cache.
        memory(&bundle);
        let found = memory(&bundle);
        bundle.administrator["cache"] = json!("");
        let compiled = memory(&bundle);
        for (way, (most, own)) in [("compiled module found", found), ("compiled in the container", compiled)] {
            text.push_str(&format!(
                "| memory of the {name}, {way}: resident at most / its own when it runs | {:.1} / {:.1} MiB |\n",
                mib(most),
                mib(own)
            ));
        }
    }
    text
}

/// Most resident bytes until the program runs, and those shared with nobody then.
fn memory(bundle: &Bundle) -> (u64, u64) {
    let mut child = bundle.run_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let state = finish(bundle.hull().args(["state", &bundle.id])).stdout;
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", state["pid"])).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let figures = (field("VmHWM:"), field("RssAnon:"));
    finish(bundle.hull().args(["kill", &bundle.id, "KILL"]));
    child.wait().unwrap();
    figures
}

fn mib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0
}
