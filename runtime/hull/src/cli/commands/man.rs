//! `hull man`.

use super::super::parse::Parsed;
use super::super::table::COMMANDS;
use super::super::{Global, help, print};
use crate::error::{Code, Error, Result};

pub(in super::super) fn run(_: &Global, parsed: &Parsed) -> Result<i32> {
    if let Some(directory) = parsed.get("output") {
        return write_all(directory).map(|()| 0);
    }
    let command = match parsed.args.first() {
        None => None,
        Some(name) => Some(COMMANDS.iter().find(|c| c.name == name).ok_or_else(|| unknown(name))?),
    };
    print(&help::man(command))
}

fn unknown(name: &str) -> Error {
    Error::usage(name, format!("no command {name}"))
}

/// Everything that a package installs below /usr/share.
fn write_all(directory: &str) -> Result<()> {
    let mut files = vec![("man/man8/hull.8".to_owned(), help::man(None))];
    files.extend(COMMANDS.iter().map(|c| (format!("man/man8/hull-{}.8", c.name), help::man(Some(c)))));
    let places = [
        ("bash", "bash-completion/completions/hull"),
        ("zsh", "zsh/vendor-completions/_hull"),
        ("fish", "fish/vendor_completions.d/hull.fish"),
    ];
    files.extend(places.into_iter().filter_map(|(shell, path)| Some((path.to_owned(), help::completion(shell)?))));
    for (name, text) in files {
        let path = std::path::Path::new(directory).join(name);
        let parent = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|e| Error::of_io(Code::Output, path.display().to_string(), &e))?;
    }
    Ok(())
}
