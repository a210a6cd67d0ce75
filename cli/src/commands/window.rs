//! How much may be on its way to a command or a port: who sends no more than that is heard at once when they signal or hang up.

use tokio::sync::Semaphore;

/// A permit for each byte that may be sent.
#[derive(Debug)]
pub(crate) struct Window(Semaphore);

impl Window {
    /// Nothing may be sent yet: the far end has not said how much.
    pub(crate) const fn closed() -> Self {
        Self(Semaphore::const_new(0))
    }

    /// The far end's first word; none: it will tell nothing of what it takes.
    pub(crate) fn open(&self, bytes: Option<u32>) {
        self.widen(bytes.map_or(Semaphore::MAX_PERMITS, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)));
    }

    /// There is room for more.
    pub(crate) fn widen(&self, bytes: usize) {
        // A semaphore panics beyond its maximum, and the number is a server's.
        self.0.add_permits(bytes.min(Semaphore::MAX_PERMITS - self.0.available_permits()));
    }

    /// Takes permits for up to `wanted` bytes, as many as there are; waits for the first. Cancel safe: none are taken before it returns.
    pub(crate) async fn room(&self, wanted: usize) -> usize {
        // The semaphore is never closed.
        let Ok(first) = self.0.acquire().await else { return std::future::pending().await };
        first.forget();
        1 + self.0.forget_permits(wanted - 1)
    }
}
