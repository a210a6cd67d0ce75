//! Passwords: the rule for new ones, and hashing and verifying with argon2id.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use berth_clock::Entropy;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

/// Shortest password, in characters.
pub(crate) const MIN_CHARS: usize = 12;
/// Longest password, in bytes: more costs time and adds no security.
pub(crate) const MAX_BYTES: usize = 256;

/// Memory of one hash, KiB; with [`PASSES`] the second row of OWASP's recommendations.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Blocks of 1 KiB that are reserved for a hash, though no more than its own are touched. The C library keeps what was freed for later, in each
/// thread that had it, up to 32 MiB at once; anything larger is a mapping of its own, and goes back to the system.
const RESERVED_BLOCKS: usize = 33 * 1024;

/// Passwords that are long enough and still among the first that attackers try.
const COMMON: [&str; 20] = [
    "123456789012",
    "1234567890123",
    "12345678901234",
    "123456789012345",
    "1234567890123456",
    "passwordpassword",
    "password1234",
    "password12345",
    "password123456",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyuiop[]",
    "qwertyqwerty",
    "letmeinletmein",
    "administrator",
    "administrator1",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "iloveyou1234",
    "correcthorsebatterystaple",
];

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WeakPassword {
    /// Too short.
    #[error("the password is too short: use at least {MIN_CHARS} characters")]
    Short,
    /// Too long.
    #[error("the password is too long: use at most {MAX_BYTES} bytes")]
    Long,
    /// Easily guessed.
    #[error("the password is among the first that are guessed, or one character over and over: use another")]
    Common,
    /// Made of the account's own words.
    #[error("the password contains the account's address: use another")]
    Personal,
}

/// Hashing failed, which says nothing about whether the password is right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    /// Parameters, or memory.
    #[error("the password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    /// The parameters of this program.
    #[error("the parameters of argon2 are refused")]
    Parameters(#[source] argon2::Error),
    /// The process is shutting down.
    #[error("the password was not hashed: the server is shutting down")]
    Stopped,
}

/// Is this password good enough for the account?
///
/// # Errors
/// Why not.
pub(crate) fn check_new(password: &SecretString, email: &str) -> Result<(), WeakPassword> {
    let text = password.expose_secret();
    if text.len() > MAX_BYTES {
        return Err(WeakPassword::Long);
    }
    if text.chars().count() < MIN_CHARS {
        return Err(WeakPassword::Short);
    }
    let lower = text.to_lowercase();
    let mut chars = lower.chars();
    let first = chars.next();
    if COMMON.contains(&lower.as_str()) || chars.all(|c| Some(c) == first) {
        return Err(WeakPassword::Common);
    }
    let (local, _) = email.rsplit_once('@').unwrap_or((email, ""));
    if lower.contains(&email.to_lowercase()) || (local.len() >= 8 && lower.contains(&local.to_lowercase())) {
        return Err(WeakPassword::Personal);
    }
    Ok(())
}

/// Hashes and verifies passwords on the blocking pool, a few at a time: each takes 19 MiB, and anybody can cause one by trying to log in.
#[derive(Clone)]
pub(crate) struct Passwords {
    permits: Arc<Semaphore>,
    /// Hash of a password that nobody has: unknown accounts take as long as known ones.
    dummy: Arc<tokio::sync::OnceCell<String>>,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("free", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It is the password.
    Right,
    /// The password is right, but its hash has outdated parameters: hash it anew.
    RightButOld,
    /// It is not.
    Wrong,
}

fn current() -> Result<Params, HashError> {
    Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(HashError::Parameters)
}

fn hash_with(
    algorithm: Algorithm,
    version: Version,
    params: &Params,
    password: &[u8],
    salt: &[u8],
) -> argon2::password_hash::Result<PasswordHash> {
    let mut output = [0; Output::MAX_LENGTH];
    let output = output
        .get_mut(..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN))
        .ok_or(argon2::password_hash::Error::OutputSize)?;
    let mut memory = Vec::with_capacity(params.block_count().max(RESERVED_BLOCKS));
    memory.resize(params.block_count(), Block::new());
    Argon2::new(algorithm, version, params.clone()).hash_password_into_with_memory(password, salt, output, memory)?;
    Ok(PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: ParamsString::try_from(params)?,
        salt: Some(Salt::new(salt)?),
        hash: Some(Output::new(output)?),
    })
}

fn verify(password: &[u8], hash: &PasswordHash) -> argon2::password_hash::Result<bool> {
    let Some(salt) = &hash.salt else { return Ok(false) };
    let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
    let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let made = hash_with(algorithm, version, &Params::try_from(hash)?, password, salt)?;
    // `Output` compares in constant time.
    Ok(made.hash.is_some() && made.hash == hash.hash)
}

impl Passwords {
    /// At most `at_once` at the same time.
    #[must_use]
    pub(crate) fn new(at_once: u32, entropy: Arc<dyn Entropy>) -> Self {
        let permits = usize::try_from(at_once).unwrap_or(1).max(1);
        Self { permits: Arc::new(Semaphore::new(permits)), dummy: Arc::default(), entropy }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| HashError::Stopped)?;
        tokio::task::spawn_blocking(move || {
            // The permit is held inside the task: a request that is dropped must not let more hashes run than there are permits.
            let _permit = permit;
            work()
        })
        .await
        .map_err(|_| HashError::Stopped)?
    }

    /// Hashes a new password; a PHC string.
    ///
    /// # Errors
    /// See [`HashError`].
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String, HashError> {
        let mut salt = [0_u8; 16];
        self.entropy.fill(&mut salt);
        self.blocking(move || {
            let password = password.expose_secret().as_bytes();
            let hash = hash_with(Algorithm::Argon2id, Version::V0x13, &current()?, password, &salt);
            Ok(hash.map_err(HashError::Hash)?.to_string())
        })
        .await
    }

    /// Verifies a password against a hash. Without a hash the answer is no, after the same time.
    ///
    /// # Errors
    /// See [`HashError`].
    pub(crate) async fn check(&self, password: SecretString, hash: Option<String>) -> Result<Checked, HashError> {
        let known = hash.is_some();
        let hash = match hash {
            Some(hash) => hash,
            None => self
                .dummy
                .get_or_try_init(|| self.hash(crate::domain::secret::new_opaque(self.entropy.as_ref())))
                .await?
                .clone(),
        };
        self.blocking(move || {
            let parsed =
                PasswordHash::new(&hash).map_err(|_| HashError::Hash(argon2::password_hash::Error::EncodingInvalid))?;
            let right = verify(password.expose_secret().as_bytes(), &parsed).map_err(HashError::Hash)?;
            let current = Params::try_from(&parsed)
                .is_ok_and(|p| p.m_cost() == MEMORY_KIB && p.t_cost() == PASSES && p.p_cost() == LANES);
            Ok(match (right && known, current) {
                (true, true) => Checked::Right,
                (true, false) => Checked::RightButOld,
                (false, _) => Checked::Wrong,
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordHasher as _;
    use berth_clock::SystemEntropy;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn weak_passwords_are_named() {
        let check = |text: &str| check_new(&secret(text), "adalovelace@example.com");
        assert_eq!(check("short"), Err(WeakPassword::Short));
        assert_eq!(check(&"ä".repeat(200)), Err(WeakPassword::Long));
        assert_eq!(check("PasswordPassword"), Err(WeakPassword::Common));
        assert_eq!(check("aaaaaaaaaaaaaaa"), Err(WeakPassword::Common));
        assert_eq!(check("my adalovelace 1"), Err(WeakPassword::Personal));
        assert_eq!(check("a fine sentence of words"), Ok(()));
    }

    #[tokio::test]
    async fn a_password_is_hashed_with_the_agreed_parameters_and_checked() {
        let passwords = Passwords::new(2, Arc::new(SystemEntropy));
        let hash = passwords.hash(secret("a fine sentence of words")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let check = |text: &str, hash: Option<String>| passwords.check(secret(text), hash);
        assert_eq!(check("a fine sentence of words", Some(hash.clone())).await.unwrap(), Checked::Right);
        assert_eq!(check("another sentence of words", Some(hash)).await.unwrap(), Checked::Wrong);
        assert_eq!(check("a fine sentence of words", None).await.unwrap(), Checked::Wrong);
        // One that argon2's own functions made.
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
        let old: PasswordHash = weak.hash_password_with_salt(b"a fine sentence of words", b"0123456789abcdef").unwrap();
        let old = check("a fine sentence of words", Some(old.to_string())).await.unwrap();
        assert_eq!(old, Checked::RightButOld);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_memory_of_hashes_goes_back_to_the_system() {
        let resident_kib = || -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let passwords = Passwords::new(4, Arc::new(SystemEntropy));
        let hash = || passwords.hash(secret("a fine sentence of words"));
        hash().await.unwrap();
        let before = resident_kib();
        for _ in 0..3 {
            tokio::try_join!(hash(), hash(), hash(), hash()).unwrap();
        }
        let after = resident_kib();
        assert!(after < before + u64::from(MEMORY_KIB) / 2, "{before} KiB before twelve hashes, {after} KiB after");
    }
}
