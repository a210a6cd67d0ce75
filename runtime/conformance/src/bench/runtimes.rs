//! The runtimes that are compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::table::{Cell, Row};

/// One of them.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) path: PathBuf,
    /// Its own name, unique among the compared.
    pub(crate) label: String,
    /// Name and version.
    pub(crate) title: String,
}

impl Runtime {
    /// hull and those peers that are installed.
    pub(crate) fn find_all(hull: &Path, peers: &[PathBuf]) -> Result<Vec<Runtime>> {
        let mut found = vec![Runtime::open(locate(hull).with_context(|| {
            format!("no hull at {}: build it by `make build`, or name it with --hull", hull.display())
        })?)?];
        for peer in peers {
            if let Some(path) = locate(peer) {
                let mut runtime = Runtime::open(path)?;
                if found.iter().any(|other| other.label == runtime.label) {
                    runtime.label = format!("{}-{}", runtime.label, found.len());
                }
                found.push(runtime);
            }
        }
        Ok(found)
    }

    fn open(path: PathBuf) -> Result<Runtime> {
        let output =
            Command::new(&path).arg("--version").output().with_context(|| format!("cannot run {}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let title = text.lines().next().unwrap_or_default().replace(" version ", " ");
        let label = title.split(' ').next().unwrap_or("runtime").to_owned();
        Ok(Runtime { path, label, title })
    }

    /// Its binary as the stopwatch wants it.
    pub(crate) fn program(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

fn locate(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.canonicalize().ok();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// Sizes of the binaries.
pub(crate) fn sizes(runtimes: &[Runtime]) -> Result<Row> {
    let mut cells = vec![Cell::None];
    for runtime in runtimes {
        let bytes = std::fs::metadata(&runtime.path)?.len();
        let linked = if is_static(&runtime.path)? { "static" } else { "with shared libraries" };
        cells.push(Cell::Text(format!("{}.{:02} MiB, {linked}", bytes >> 20, ((bytes % (1 << 20)) * 100) >> 20)));
    }
    Ok(Row { name: "binary".to_owned(), cells })
}

fn is_static(path: &Path) -> Result<bool> {
    let bytes = std::fs::read(path)?;
    Ok(!bytes.windows(9).any(|window| window == b"/ld-linux" || window == b"/ld-musl-"))
}
