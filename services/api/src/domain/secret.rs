//! Secrets that clients hold: personal access tokens, session cookies, the set-up link. The database keeps only their SHA-256: they are
//! random, so a slow hash would add nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_clock::Entropy;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const TOKEN_BRAND: &str = "berth_pat_";
const RANDOM_CHARS: usize = 30;
const CHECKSUM_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-256 of a secret: what is stored, looked up and cached.
pub(crate) type SecretHash = [u8; 32];

/// The hash that stands for a secret.
#[must_use]
pub(crate) fn hash(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Why a text is not a personal access token; decided without asking the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFormatError {
    /// Not ours.
    #[error("this is not a personal access token: those begin with berth_pat_")]
    Brand,
    /// Cut off or mistyped.
    #[error("the personal access token is incomplete or mistyped: its checksum is wrong")]
    Checksum,
}

/// A new personal access token: prefix, 30 random base62 characters (178 bits), and a CRC-32 of all that, so that scanners can tell a real
/// token from a look-alike offline.
#[must_use]
pub(crate) fn new_token(entropy: &dyn Entropy) -> SecretString {
    let mut text = String::from(TOKEN_BRAND);
    let mut left = RANDOM_CHARS;
    while left > 0 {
        let mut bytes = [0_u8; 48];
        entropy.fill(&mut bytes);
        // 248 is the largest multiple of 62 in a byte: above it the remainder would favour the first characters.
        for byte in bytes.iter().filter(|byte| **byte < 248).take(left) {
            text.push(char::from(BASE62[usize::from(byte % 62)]));
            left -= 1;
        }
    }
    let checksum = checksum(&text);
    text.push_str(&checksum);
    SecretString::from(text)
}

/// Checks form and checksum.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_token(text: &str) -> Result<(), TokenFormatError> {
    let rest = text.strip_prefix(TOKEN_BRAND).ok_or(TokenFormatError::Brand)?;
    if rest.len() != RANDOM_CHARS + CHECKSUM_CHARS || !rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(TokenFormatError::Checksum);
    }
    let (body, given) = text.split_at(TOKEN_BRAND.len() + RANDOM_CHARS);
    if checksum(body) == given { Ok(()) } else { Err(TokenFormatError::Checksum) }
}

/// The part of a token that lists show.
#[must_use]
pub(crate) fn token_prefix(token: &SecretString) -> String {
    token.expose_secret().chars().take(TOKEN_BRAND.len() + 4).collect()
}

/// A new session cookie or set-up secret: 256 random bits.
#[must_use]
pub(crate) fn new_opaque(entropy: &dyn Entropy) -> SecretString {
    let mut bytes = [0_u8; 32];
    entropy.fill(&mut bytes);
    SecretString::from(URL_SAFE_NO_PAD.encode(bytes))
}

fn checksum(text: &str) -> String {
    let mut rest = crc32(text.as_bytes());
    let mut chars = ['0'; CHECKSUM_CHARS];
    for place in chars.iter_mut().rev() {
        *place = char::from(BASE62[usize::try_from(rest % 62).unwrap_or(0)]);
        rest /= 62;
    }
    chars.iter().collect()
}

/// CRC-32 (ISO-HDLC, as in gzip and PNG), bit by bit: 40 bytes need no table.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_clock::SystemEntropy;

    #[test]
    fn crc32_gives_the_check_value_of_its_definition() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_new_token_is_valid_and_any_single_change_breaks_it() {
        let token = new_token(&SystemEntropy);
        let text = token.expose_secret();
        assert_eq!(text.len(), 46);
        check_token(text).unwrap();
        for place in 10..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[place] = if bytes[place] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(check_token(&changed), Err(TokenFormatError::Checksum), "{changed}");
        }
        assert_eq!(check_token("ghp_x"), Err(TokenFormatError::Brand));
        assert_eq!(check_token(&text[..45]), Err(TokenFormatError::Checksum));
        assert_eq!(token_prefix(&token).len(), 14);
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(new_opaque(&SystemEntropy).expose_secret(), new_opaque(&SystemEntropy).expose_secret());
        assert_eq!(new_opaque(&SystemEntropy).expose_secret().len(), 43);
    }
}
