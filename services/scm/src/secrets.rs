//! Secrets at rest: AES-256-GCM, a data key per user wrapped by the installation's master key, each value bound to its table, row and column.
//!
//! A sealed value is the 96-bit nonce, then ciphertext and tag. A value moved to another row or column does not open.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_clock::Entropy;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// The master key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// No file was named.
    #[error("no file is named: set it to a path that only the server can read")]
    Unset,
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be made.
    #[error("{path} cannot be made")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no key.
    #[error(
        "{path} does not hold a key: expected 32 bytes as base64; restore it from the backup, a new key cannot read what is stored"
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
}

/// A value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Sealing failed.
    #[error("{column} of {table} {row} could not be encrypted")]
    Seal {
        /// The table.
        table: &'static str,
        /// The row.
        row: String,
        /// The column.
        column: &'static str,
    },
    /// The value was sealed with another key or for another place, or was changed.
    #[error("{column} of {table} {row} cannot be decrypted: is scm.master_key_file the key it was stored with?")]
    Open {
        /// The table.
        table: &'static str,
        /// The row.
        row: String,
        /// The column.
        column: &'static str,
    },
}

/// Where a sealed value is stored: it can be opened only for this place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'static str,
    pub(crate) row: &'a str,
    pub(crate) column: &'static str,
}

impl Place<'_> {
    fn associated_data(self) -> String {
        // A line end cannot occur in any of the parts.
        format!("{}\n{}\n{}", self.table, self.row, self.column)
    }
}

/// A key that seals values.
#[derive(Clone)]
pub(crate) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A new random key.
    pub(crate) fn generate(entropy: &dyn Entropy) -> Self {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        entropy.fill(key.as_mut());
        Self(key)
    }

    /// Reads the master key from a file; a file that does not exist is made with a new key, readable by its owner only.
    pub(crate) fn load_or_create(path: &Path, entropy: &dyn Entropy) -> Result<Self, MasterKeyError> {
        if path.as_os_str().is_empty() {
            return Err(MasterKeyError::Unset);
        }
        match std::fs::File::open(path) {
            Ok(mut file) => {
                let mut text = Zeroizing::new(String::new());
                file.read_to_string(&mut text)
                    .map_err(|source| MasterKeyError::Read { path: path.to_owned(), source })?;
                Self::from_base64(text.trim()).ok_or_else(|| MasterKeyError::Form { path: path.to_owned() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = Self::generate(entropy);
                match key.write_new(path) {
                    Ok(()) => Ok(key),
                    // Another process was faster: its key is the one that counts.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                        Self::load_or_create(path, entropy)
                    }
                    Err(source) => Err(MasterKeyError::Create { path: path.to_owned(), source }),
                }
            }
            Err(source) => Err(MasterKeyError::Read { path: path.to_owned(), source }),
        }
    }

    /// Writes the key to a temporary file and links it to its name: a reader never sees half of it, and an existing key is never replaced.
    fn write_new(&self, path: &Path) -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            let text = Zeroizing::new(format!("{}\n", STANDARD.encode(self.0.as_ref())));
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::hard_link(&beside, path)
        };
        let written = write();
        // Whether or not the temporary file is left over, the key under its name is what counts.
        let _ = std::fs::remove_file(&beside);
        written
    }

    fn from_base64(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
        let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().ok()?;
        Some(Self(Zeroizing::new(key)))
    }

    /// Seals a value for a place.
    pub(crate) fn seal(&self, value: &[u8], place: Place<'_>, entropy: &dyn Entropy) -> Result<Vec<u8>, SecretError> {
        let failed = || SecretError::Seal { table: place.table, row: place.row.to_owned(), column: place.column };
        let mut nonce = [0_u8; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let cipher = Aes256Gcm::new_from_slice(self.0.as_ref()).map_err(|_| failed())?;
        let sealed = cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: value, aad: place.associated_data().as_bytes() })
            .map_err(|_| failed())?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens a value of a place.
    pub(crate) fn open(&self, sealed: &[u8], place: Place<'_>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let failed = || SecretError::Open { table: place.table, row: place.row.to_owned(), column: place.column };
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(failed)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| failed())?;
        let cipher = Aes256Gcm::new_from_slice(self.0.as_ref()).map_err(|_| failed())?;
        cipher
            .decrypt(&Nonce::from(nonce), Payload { msg: sealed, aad: place.associated_data().as_bytes() })
            .map(Zeroizing::new)
            .map_err(|_| failed())
    }

    /// Seals another key with this one.
    pub(crate) fn wrap(&self, key: &Self, place: Place<'_>, entropy: &dyn Entropy) -> Result<Vec<u8>, SecretError> {
        self.seal(key.0.as_ref(), place, entropy)
    }

    /// Unwraps a key that was wrapped with this one.
    pub(crate) fn unwrap_key(&self, wrapped: &[u8], place: Place<'_>) -> Result<Self, SecretError> {
        let bytes = self.open(wrapped, place)?;
        let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| SecretError::Open {
            table: place.table,
            row: place.row.to_owned(),
            column: place.column,
        })?;
        Ok(Self(Zeroizing::new(key)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use berth_clock::SystemEntropy;

    use super::*;

    const PLACE: Place<'static> = Place { table: "t", row: "1", column: "c" };

    #[test]
    fn a_value_opens_in_its_place_only() {
        let key = Key::generate(&SystemEntropy);
        let sealed = key.seal(b"token", PLACE, &SystemEntropy).unwrap();
        assert_eq!(key.open(&sealed, PLACE).unwrap().as_slice(), b"token");
        assert!(!sealed.windows(5).any(|window| window == b"token"));
        for place in [Place { table: "u", ..PLACE }, Place { row: "2", ..PLACE }, Place { column: "d", ..PLACE }] {
            assert!(key.open(&sealed, place).is_err(), "{place:?}");
        }
        assert!(Key::generate(&SystemEntropy).open(&sealed, PLACE).is_err());
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(key.open(&changed, PLACE).is_err());
        assert!(key.open(&sealed[..5], PLACE).is_err());
        assert_ne!(sealed, key.seal(b"token", PLACE, &SystemEntropy).unwrap(), "nonces differ");
    }

    #[test]
    fn the_master_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/scm.key");
        let key = Key::load_or_create(&path, &SystemEntropy).unwrap();
        let again = Key::load_or_create(&path, &SystemEntropy).unwrap();
        assert_eq!(key.0, again.0);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Key::load_or_create(&path, &SystemEntropy), Err(MasterKeyError::Form { .. })));
        assert!(matches!(Key::load_or_create(Path::new(""), &SystemEntropy), Err(MasterKeyError::Unset)));
    }
}
