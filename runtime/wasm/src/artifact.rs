//! A compiled module as a file: wasmtime's image, then what says where it comes from.
//!
//! The image is native code that wasmtime executes as it is. So it is trusted only from a descriptor that hull passed, of a file that nobody
//! can write to; the digests detect incomplete and mixed-up files, not forgeries.

use std::os::unix::fs::FileExt as _;

use hull_sys_wasm::FixedFile;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use crate::program::{Kind, Program};

/// SHA-256.
pub(crate) type Digest = [u8; 32];

/// After the image: digest of the module, digest of the image, this.
const MAGIC: &[u8; 8] = b"hullwasm";
const TRAILER: usize = 72;

/// Digest of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// The file's content.
pub(crate) fn seal(mut image: Vec<u8>, module: &Digest) -> Vec<u8> {
    let own = digest(&image);
    image.extend_from_slice(module);
    image.extend_from_slice(&own);
    image.extend_from_slice(MAGIC);
    image
}

/// Whether a file's content is whole and was made from this module.
pub(crate) fn is_whole(content: &[u8], module: &Digest) -> bool {
    let Some((image, trailer)) = content.split_last_chunk::<TRAILER>() else { return false };
    trailer.starts_with(module) && trailer.ends_with(MAGIC) && trailer.get(32..64) == Some(digest(image).as_slice())
}

/// Loads the program from a file that hull vouches for; `None` if it was made from another module, or for another engine.
pub(crate) fn load(engine: &Engine, file: &FixedFile, kind: Kind, module: &Digest) -> Option<Program> {
    let size = file.file().metadata().ok()?.len();
    let mut trailer = [0; TRAILER];
    file.file().read_exact_at(&mut trailer, size.checked_sub(72)?).ok()?;
    if !trailer.starts_with(module) || !trailer.ends_with(MAGIC) {
        return None;
    }
    match kind {
        Kind::Module => file.module(engine).map(Program::Module),
        Kind::Component => file.component(engine).map(Program::Component),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_foreign_files_are_not_whole() {
        let module = digest(b"module");
        let whole = seal(b"image".to_vec(), &module);
        assert!(is_whole(&whole, &module));
        assert!(!is_whole(&whole, &digest(b"other")));
        for cut in 0..whole.len() {
            assert!(!is_whole(&whole[..cut], &module), "{cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(!is_whole(&changed, &module), "{at}");
        }
    }
}
