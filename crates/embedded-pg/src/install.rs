//! Finds the binaries, and makes a cluster with them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::PostgresError;

/// What is missing on this machine.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No Postgres.
    #[error("Postgres is not installed (looked in PATH and /usr/lib/postgresql): run `apt-get install postgresql`")]
    NoBinaries,
    /// No user to run it as.
    #[error("the user {user} does not exist and could not be made: run `useradd --system {user}`")]
    NoUser {
        /// The user.
        user: String,
    },
}

/// The user a server runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// An installed Postgres, and whom to run it as.
#[derive(Clone, Debug)]
pub struct Installation {
    binaries: PathBuf,
    version: String,
    /// `None` if we are not root: it runs as our own user.
    owner: Option<Owner>,
    user: String,
}

impl Installation {
    /// Looks in `binaries`, `PATH`, then Debian's versioned folders, newest first.
    ///
    /// # Errors
    /// When nothing is found, or the user to run it as cannot be made.
    pub async fn find(binaries: Option<&Path>, user: &str) -> Result<Self, PostgresError> {
        let binaries = candidates(binaries)
            .into_iter()
            .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
            .ok_or(InstallError::NoBinaries)?;
        let output = run(Command::new(binaries.join("postgres")).arg("--version")).await?;
        let version = major_version(&output).unwrap_or_default();
        let own = rustix::process::getuid();
        let (owner, user) = if own.is_root() {
            (Some(ensure_user(user).await?), user.to_owned())
        } else {
            (None, user_name(own.as_raw()).unwrap_or_else(|| "postgres".to_owned()))
        };
        Ok(Self { binaries, version, owner, user })
    }

    /// The major version, for example `15`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A command that runs `program` of the installation as its user.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    /// Whether the user can reach `data`, as far as the folders above it exist.
    pub(crate) fn check_way(&self, data: &Path) -> Result<(), PostgresError> {
        let Some(owner) = self.owner else { return Ok(()) };
        for folder in data.ancestors().skip(1) {
            let Ok(metadata) = std::fs::metadata(folder) else { continue };
            let may_enter = match (metadata.uid() == owner.uid, metadata.gid() == owner.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if metadata.mode() & may_enter == 0 {
                return Err(PostgresError::NoWay { user: self.user.clone(), folder: folder.display().to_string() });
            }
        }
        Ok(())
    }

    pub(crate) fn prepare_folder(&self, folder: &Path) -> Result<(), PostgresError> {
        std::fs::create_dir_all(folder).map_err(io("create", folder))?;
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).map_err(io("protect", folder))?;
        if let Some(owner) = self.owner {
            chown(folder, Some(owner.uid), Some(owner.gid)).map_err(io("give away", folder))?;
        }
        Ok(())
    }

    /// Makes a cluster. It is made beside `data` and renamed, so a killed initdb leaves nothing that looks like one.
    pub(crate) async fn initdb(&self, data: &Path, role: &str) -> Result<(), PostgresError> {
        let fresh = data.with_extension("new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).map_err(io("remove", &fresh))?;
        }
        if let Some(parent) = data.parent() {
            std::fs::create_dir_all(parent).map_err(io("create", parent))?;
        }
        self.prepare_folder(&fresh)?;
        run(self.command("initdb").arg("--pgdata").arg(&fresh).args([
            "--username",
            role,
            "--auth=reject",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]))
        .await?;
        std::fs::rename(&fresh, data).map_err(io("rename", &fresh))
    }

    pub(crate) fn check_version(&self, data: &Path) -> Result<(), PostgresError> {
        let file = data.join("PG_VERSION");
        let found = std::fs::read_to_string(&file).map_err(io("read", &file))?.trim().to_owned();
        if found == self.version {
            return Ok(());
        }
        Err(PostgresError::Version { data: data.display().to_string(), found, installed: self.version.clone() })
    }

    /// Writes our settings; the cluster's own files stay as initdb made them, so an administrator's edits there take effect.
    pub(crate) fn write_settings(&self, data: &Path, socket: &Path) -> Result<(), PostgresError> {
        let settings = format!(
            "# Written by Berth at each start; put your own settings into postgresql.conf.\n\
             listen_addresses = ''\n\
             unix_socket_directories = '{}'\n\
             unix_socket_permissions = 0700\n\
             max_connections = 200\n\
             shared_buffers = 64MB\n\
             fsync = on\n\
             full_page_writes = on\n\
             synchronous_commit = on\n\
             wal_compression = on\n\
             password_encryption = 'scram-sha-256'\n\
             log_destination = 'stderr'\n\
             log_min_duration_statement = 1000\n",
            socket.display()
        );
        self.write(&data.join("berth.conf"), &settings)?;
        let main = data.join("postgresql.conf");
        let text = std::fs::read_to_string(&main).map_err(io("read", &main))?;
        if !text.lines().any(|line| line.trim() == "include_if_exists = 'berth.conf'") {
            self.write(&main, &format!("{text}\ninclude_if_exists = 'berth.conf'\n"))?;
        }
        self.write(&data.join("pg_hba.conf"), "local all all peer map=berth\n")?;
        self.write(&data.join("pg_ident.conf"), &format!("berth root berth\nberth {} berth\n", self.user))
    }

    pub(crate) async fn create_database(&self, socket: &Path, name: &str) -> Result<(), PostgresError> {
        let psql = |sql: &str| {
            let mut command = self.command("psql");
            command.arg("-h").arg(socket).args(["-U", name, "-d", "postgres", "-XAtqc", sql]);
            command
        };
        let exists = run(&mut psql("SELECT 1 FROM pg_database WHERE datname = 'berth'")).await?;
        if exists.trim() != "1" {
            run(&mut psql("CREATE DATABASE berth")).await?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), PostgresError> {
        if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        let fresh = path.with_extension("berth-new");
        std::fs::write(&fresh, text).map_err(io("write", &fresh))?;
        std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o600)).map_err(io("protect", &fresh))?;
        if let Some(owner) = self.owner {
            chown(&fresh, Some(owner.uid), Some(owner.gid)).map_err(io("give away", &fresh))?;
        }
        std::fs::rename(&fresh, path).map_err(io("rename", &fresh))
    }
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PostgresError + use<> {
    let path = path.display().to_string();
    move |source| PostgresError::Io { action, path, source }
}

fn candidates(chosen: Option<&Path>) -> Vec<PathBuf> {
    if let Some(chosen) = chosen {
        return vec![chosen.to_owned()];
    }
    // Debian's folders first: there `psql`, `initdb` and `postgres` are of one version, while PATH may hold wrappers.
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let debian = versions.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian.chain(std::env::split_paths(&path)).collect()
}

async fn run(command: &mut Command) -> Result<String, PostgresError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.map_err(io("run", Path::new(&program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(PostgresError::Program { program, output: lines[lines.len().saturating_sub(4)..].join(" | ") })
}

/// `postgres (PostgreSQL) 15.18 (Debian ..)` -> `15`.
fn major_version(output: &str) -> Option<String> {
    let number = output.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(number.split('.').next().unwrap_or(number).to_owned())
}

async fn ensure_user(user: &str) -> Result<Owner, PostgresError> {
    if let Some(owner) = find_user(user) {
        return Ok(owner);
    }
    let made = Command::new("useradd")
        .args([
            "--system",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
            "--user-group",
            user,
        ])
        .output()
        .await;
    if made.is_ok_and(|output| output.status.success())
        && let Some(owner) = find_user(user)
    {
        return Ok(owner);
    }
    Err(InstallError::NoUser { user: user.to_owned() }.into())
}

fn passwd() -> String {
    std::fs::read_to_string("/etc/passwd").unwrap_or_default()
}

fn find_user(user: &str) -> Option<Owner> {
    passwd().lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&user))
            .then(|| Some(Owner { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? }))?
    })
}

fn user_name(uid: u32) -> Option<String> {
    passwd().lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse::<u32>().ok()? == uid).then(|| fields[0].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_folder_above_the_files_is_named() {
        let outer = tempfile::tempdir().unwrap();
        let home = outer.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let owner = Some(Owner { uid: 4_000_000, gid: 4_000_000 });
        let installation =
            Installation { binaries: PathBuf::new(), version: String::new(), owner, user: "berth-postgres".to_owned() };
        std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let error = installation.check_way(&home.join("postgres")).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod o+x {}`", outer.path().display())), "{error}");
        std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o711)).unwrap();
        installation.check_way(&home.join("postgres")).unwrap();
        Installation { owner: None, ..installation }.check_way(&home).unwrap();
    }

    #[test]
    fn the_major_version_is_read() {
        let version = super::major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!(version.as_deref(), Some("15"));
    }
}
