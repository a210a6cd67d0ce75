//! Runs programs under the stopwatch of `floor.c`.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// What one program took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) wall_ns: u64,
    /// Of the program and of all its descendants that it waited for.
    pub(crate) cpu_us: u64,
    /// The largest of these processes.
    pub(crate) rss_kib: u64,
}

impl Taken {
    /// One after the other.
    pub(crate) fn then(self, other: Taken) -> Taken {
        Taken {
            wall_ns: self.wall_ns.saturating_add(other.wall_ns),
            cpu_us: self.cpu_us.saturating_add(other.cpu_us),
            rss_kib: self.rss_kib.max(other.rss_kib),
        }
    }
}

/// The compiled helper.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The program, which is also the floor.
    pub(crate) program: String,
    folder: PathBuf,
}

impl Meter {
    /// Compiles it, unless a compiled one is given and there; where it is not there, it is put there.
    pub(crate) fn build(work: &Path, given: Option<&Path>) -> Result<Meter> {
        let program = given.map_or_else(|| work.join("floor"), Path::to_owned);
        if !program.exists() {
            let source = work.join("floor.c");
            fs::write(&source, include_str!("floor.c"))?;
            let output = Command::new("cc")
                .args(["-O2", "-static", "-o"])
                .args([&program, &source])
                .output()
                .context("no C compiler; install the packages gcc and libc6-dev")?;
            ensure!(output.status.success(), "cannot compile the floor: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Meter { program: program.to_string_lossy().into_owned(), folder: work.to_owned() })
    }

    /// Runs a program to its end; it must succeed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Taken> {
        let (mut child, file) = self.spawn(words, "one")?;
        self.finish(&mut child, &file, words)
    }

    /// Starts a program; `slot` must differ between those that run at once.
    pub(crate) fn spawn(&self, words: &[&str], slot: &str) -> Result<(Child, PathBuf)> {
        let file = self.folder.join(format!("taken-{slot}"));
        let errors = fs::File::create(self.folder.join(format!("errors-{slot}")))?;
        let _ = fs::remove_file(&file);
        let child = Command::new(&self.program)
            .arg("meter")
            .arg(&file)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .current_dir("/")
            .spawn()?;
        Ok((child, file))
    }

    /// Waits for a program.
    pub(crate) fn finish(&self, child: &mut Child, file: &Path, words: &[&str]) -> Result<Taken> {
        let status = child.wait()?;
        if !status.success() {
            let name = file.file_name().unwrap_or_default().to_string_lossy().replace("taken", "errors");
            let errors = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            bail!("{}: status {code}: {}", words.join(" "), errors.trim());
        }
        let text = fs::read_to_string(file)?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let mut next =
            || numbers.next().context("the stopwatch wrote too little")?.context("the stopwatch wrote no number");
        Ok(Taken { wall_ns: next()?, cpu_us: next()?, rss_kib: next()? })
    }
}
