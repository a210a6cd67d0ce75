//! Starts that are under way: they get the processors first, before what is made ahead for later ones.

use std::time::Duration;

use tokio::sync::watch;

/// Longest time that making ahead waits: one start with a long checkout must not leave the next one without a network and a disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many starts are under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    /// One more, until the value is dropped.
    pub(super) fn begin(&self) -> Begun {
        self.0.send_modify(|count| *count += 1);
        Begun(self.clone())
    }

    /// For whoever makes ahead.
    pub(crate) fn quiet(&self) -> Quiet {
        Quiet(self.0.subscribe())
    }
}

/// A start that is under way.
#[derive(Debug)]
pub(super) struct Begun(UnderWay);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// Tells when no start is under way.
#[derive(Debug)]
pub(crate) struct Quiet(watch::Receiver<usize>);

impl Quiet {
    /// Waits for it, but not for long, and then looks.
    pub(crate) async fn then<T>(&mut self, look: impl FnOnce() -> T) -> T {
        // Over after a second, or with the node: both are fine.
        let _ = tokio::time::timeout(PATIENCE, self.0.wait_for(|count| *count == 0)).await;
        look()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn making_ahead_waits_for_the_last_start_but_not_for_a_long_one() {
        let under_way = UnderWay::default();
        let mut quiet = under_way.quiet();
        assert_eq!(quiet.then(|| 1).now_or_never(), Some(1), "nothing is under way");

        let (first, second) = (under_way.begin(), under_way.begin());
        {
            let mut waiting = std::pin::pin!(quiet.then(|| 2));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            drop(first);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            drop(second);
            assert_eq!(waiting.await, 2);
        }
        let _long = under_way.begin();
        assert_eq!(quiet.then(|| 3).await, 3);
    }
}
