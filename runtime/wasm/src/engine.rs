//! The settings of wasmtime, on which compiled modules depend.

use std::hash::{Hash, Hasher};

use rustix::process::{Resource, getrlimit};
use wasmtime::{Config, Engine};

/// Version of wasmtime, for people; compiled modules are distinguished by [`compatibility`].
pub(crate) const VERSION: &str = env!("WASMTIME_VERSION");

/// wasmtime reserves 4 GiB of addresses for each memory, with guards beside them.
const WANTED_ADDRESSES: u64 = 32 << 30;

/// An engine for programs and for the compiler.
pub(crate) fn new() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    if getrlimit(Resource::As).current.is_some_and(|limit| limit < WANTED_ADDRESSES) {
        // Slower code that checks bounds itself, for containers with RLIMIT_AS.
        config.memory_reservation(0).memory_guard_size(0).memory_reservation_for_growth(1 << 20);
    }
    Engine::new(&config)
}

/// A number that differs whenever compiled modules of one engine cannot be used by another: version of wasmtime,
/// settings, processor.
pub(crate) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a: the standard library's hasher may change between its versions. A collision costs a compilation, since
/// wasmtime compares the settings themselves.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
