//! Request coalescing ("single flight"): identical requests at the same moment are made once.
//!
//! An answer is never older than the request for it: a caller joins a call that has *not begun*, or prepares the next. So whatever was done
//! before the request is in the answer, which a cache could not promise, however short-lived. When it is quiet a request waits for nothing;
//! under load, calls for the same question begin at least a spacing apart, and all who ask in between share the next one.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// More questions than this, and those that are over are dropped.
const SWEEP_AT: usize = 256;

/// The askings of one question.
struct Turns<A> {
    last_began: Option<Instant>,
    /// Has not begun: whoever asks now may share it.
    next: Option<Shared<BoxFuture<'static, A>>>,
}

/// Asks questions `Q` for answers `A`, each together with everybody who asks the same at the same time.
pub struct Together<Q, A> {
    spacing: Duration,
    questions: Arc<Mutex<HashMap<Q, Turns<A>>>>,
}

impl<Q, A> Clone for Together<Q, A> {
    fn clone(&self) -> Self {
        Self { spacing: self.spacing, questions: Arc::clone(&self.questions) }
    }
}

impl<Q, A> fmt::Debug for Together<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together").field("spacing", &self.spacing).finish_non_exhaustive()
    }
}

impl<Q, A> Together<Q, A>
where
    Q: Clone + Eq + Hash + Send + 'static,
    A: Clone + Send + Sync + 'static,
{
    /// Calls for one question begin `spacing` apart: best about as long as a call takes, so that nobody waits for more than twice as long as
    /// alone.
    #[must_use]
    pub fn new(spacing: Duration) -> Self {
        Self { spacing, questions: Arc::default() }
    }

    /// The answer to the question, by `ask` unless somebody has already prepared to ask it. Whichever waiter is polled drives the call; the
    /// others may hang up. If all of them have hung up, the call begins when the question is asked again.
    pub fn ask<F>(&self, question: Q, ask: impl FnOnce(Q) -> F) -> Shared<BoxFuture<'static, A>>
    where
        F: Future<Output = A> + Send + 'static,
    {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if questions.len() >= SWEEP_AT {
            let over = |turns: &Turns<A>| {
                turns.next.is_none() && turns.last_began.is_none_or(|began| began.elapsed() > self.spacing)
            };
            questions.retain(|_, turns| !over(turns));
        }
        let turns = questions.entry(question.clone()).or_insert(Turns { last_began: None, next: None });
        if let Some(next) = &turns.next {
            return next.clone();
        }
        let turn = self.clone().turn(question.clone(), turns.last_began, ask(question)).boxed().shared();
        turns.next = Some(turn.clone());
        turn
    }

    async fn turn(self, question: Q, last_began: Option<Instant>, asking: impl Future<Output = A>) -> A {
        if let Some(last_began) = last_began {
            tokio::time::sleep_until(last_began + self.spacing).await;
        }
        if let Some(turns) = self.questions.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&question) {
            // From here on the call may miss a change: whoever asks now gets another call.
            *turns = Turns { last_began: Some(Instant::now()), next: None };
        }
        asking.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rush_shares_and_no_answer_is_older_than_its_question() {
        let together = Together::<&str, u32>::new(Duration::from_millis(25));
        let begun = Arc::new(AtomicU32::new(0));
        let ask = |question| {
            let begun = Arc::clone(&begun);
            together.ask(question, move |_| async move {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
                number
            })
        };
        let first = tokio::spawn(ask("a"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(begun.load(Ordering::SeqCst), 1, "the first of a quiet moment waits for nothing");
        // It has begun: these three share the next, and another question does not wait for them.
        let (second, third, other) = (ask("a"), ask("a"), ask("b"));
        assert_eq!(other.await, 2);
        assert_eq!((second.await, third.await), (3, 3));
        assert_eq!(first.await.unwrap(), 1);
        // Nobody waits for a call that was dropped before it began.
        drop(ask("a"));
        assert_eq!(ask("a").await, 4);
    }
}
