//! Configuration: defaults, then a TOML file, then `BERTH_…` variables (`__` between levels); parsed into types before anything is built.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("the configuration file {0} does not exist: give another with --config, or leave the option out")]
    Missing(PathBuf),
    /// A value is wrong; the text names the key, the file or variable it came from, and what was expected.
    #[error("the configuration is wrong: {0}")]
    Invalid(String),
    /// A secret's file cannot be read.
    #[error("the secret {key} cannot be read from {path}")]
    Secret {
        /// The key of the configuration.
        key: &'static str,
        /// The file it names.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Reads the configuration: `T::default()`, then `file`, then the environment (`BERTH_SERVER__LISTEN` sets `server.listen`).
///
/// # Errors
/// When the file is missing or a value is wrong; unknown keys are wrong where `T` says so.
pub fn load<T: Default + Serialize + DeserializeOwned>(file: Option<&Path>) -> Result<T, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(T::default()));
    if let Some(file) = file {
        if !file.is_file() {
            return Err(ConfigError::Missing(file.to_owned()));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    // Only names with a section are settings: BERTH_HOME, BERTH_TOKEN and their like belong to the command line.
    let env = Env::prefixed("BERTH_").filter(|key| key.as_str().contains("__")).split("__");
    figment.merge(env).extract().map_err(|error| {
        let lines: Vec<String> = error.into_iter().map(|error| told(&error)).collect();
        ConfigError::Invalid(lines.join("; "))
    })
}

/// What is wrong, with which key, where: the file by its whole path, whatever folder we are in.
fn told(error: &figment::Error) -> String {
    let mut text = error.kind.to_string();
    if !error.path.is_empty() {
        text.push_str(&format!(" at {}", error.path.join(".")));
    }
    match error.metadata.as_ref().map(|metadata| (metadata.source.as_ref(), &metadata.name)) {
        Some((Some(figment::Source::File(file)), _)) => text.push_str(&format!(" in {}", file.display())),
        Some((_, name)) => text.push_str(&format!(" in {name}")),
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        server: Server,
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Server {
        listen: String,
    }

    impl Default for Server {
        fn default() -> Self {
            Self { listen: "127.0.0.1:7070".to_owned() }
        }
    }

    #[test]
    fn a_wrong_key_is_named_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("berth.toml");
        std::fs::write(&file, "[server]\nlisten = \"0.0.0.0:1\"\n").unwrap();
        assert_eq!(load::<Settings>(Some(&file)).unwrap().server.listen, "0.0.0.0:1");
        std::fs::write(&file, "[server]\nlitsen = \"x\"\n").unwrap();
        let error = load::<Settings>(Some(&file)).unwrap_err().to_string();
        let named =
            error.contains("litsen") && error.contains(" at server") && error.ends_with(&file.display().to_string());
        assert!(named, "{error}");
        assert!(matches!(load::<Settings>(Some(Path::new("/nonexistent"))), Err(ConfigError::Missing(_))));
    }
}
