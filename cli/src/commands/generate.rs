//! `berth internal generate`: the generated files of the repository, written or checked.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::output;

/// Writes the files below `root`, or names those that differ.
pub(crate) fn run(root: &Path, check: bool) -> anyhow::Result<()> {
    let mut differ = Vec::new();
    for (name, text) in files()? {
        let path = root.join(&name);
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        if present == text {
            continue;
        }
        if check {
            differ.push(name);
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        output::note(format!("wrote {name}"));
    }
    if differ.is_empty() {
        return Ok(());
    }
    bail!("{} differ from what the code makes: run `make generate` and commit them", differ.join(", "))
}

fn files() -> anyhow::Result<Vec<(String, String)>> {
    let mut files = vec![
        ("docs/berth.toml".to_owned(), crate::server::settings::documented()?),
        ("openapi/berth.json".to_owned(), crate::server::openapi()?),
    ];
    for manifest in berth_ws_manager::manifests::manifests()? {
        files.push((manifest.path, manifest.text));
    }
    Ok(files)
}
