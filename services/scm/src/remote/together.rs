//! Equal questions of one moment are asked once.
//!
//! An answer is never older than its question: who asks joins a listing that has *not begun*, or prepares the next. So a push that was done before
//! somebody asked is in their answer, which a cache of however short a time could not promise. The first question of a quiet moment waits
//! for nothing; in a rush, listings of one question begin [`SPACING`] apart, and all who ask in between share the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Listing, Login, Remote, RemoteError};

/// Listings of one question begin this far apart: a git host answers in about this time, so nobody waits for more than twice as long as alone.
const SPACING: Duration = Duration::from_millis(25);
/// Questions that are remembered before those that are over are dropped.
const SWEEP_AT: usize = 256;

type Answer = Result<Arc<Listing>, Arc<RemoteError>>;

/// What is asked, and as whom: what one user may see is shown to no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    clone_url: String,
    prefixes: Vec<String>,
    /// SHA-256 of the user name and password.
    login: Option<[u8; 32]>,
}

/// The listings of one question.
#[derive(Debug)]
struct Turns {
    last_began: Option<Instant>,
    /// Has not begun: whoever asks now may share it.
    next: Option<Shared<BoxFuture<'static, Answer>>>,
}

/// Asks a host for refs, together with all who ask the same at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Together {
    remote: Arc<Remote>,
    questions: Arc<Mutex<HashMap<Question, Turns>>>,
}

impl Together {
    pub(crate) fn new(remote: Arc<Remote>) -> Self {
        Self { remote, questions: Arc::default() }
    }

    /// As [`Remote::list`].
    pub(crate) async fn list(&self, clone_url: &str, prefixes: &[String], login: Option<&Login>) -> Answer {
        let question = Question {
            clone_url: clone_url.to_owned(),
            prefixes: prefixes.to_vec(),
            login: login.map(|login| {
                let mut digest = Sha256::new();
                for part in [login.username.as_bytes(), b"\n", login.password.expose_secret().as_bytes()] {
                    digest.update(part);
                }
                digest.finalize().into()
            }),
        };
        self.join(question, login).await
    }

    fn join(&self, question: Question, login: Option<&Login>) -> Shared<BoxFuture<'static, Answer>> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if questions.len() >= SWEEP_AT {
            let over =
                |turns: &Turns| turns.next.is_none() && turns.last_began.is_none_or(|began| began.elapsed() > SPACING);
            questions.retain(|_, turns| !over(turns));
        }
        let turns = questions.entry(question.clone()).or_insert(Turns { last_began: None, next: None });
        // One whose askers have all hung up is taken over: it begins when it is asked for.
        if let Some(next) = &turns.next {
            return next.clone();
        }
        let turn = self.clone().turn(question, login.cloned(), turns.last_began).boxed().shared();
        turns.next = Some(turn.clone());
        turn
    }

    async fn turn(self, question: Question, login: Option<Login>, last_began: Option<Instant>) -> Answer {
        if let Some(last_began) = last_began {
            tokio::time::sleep_until(last_began + SPACING).await;
        }
        if let Some(turns) = self.questions.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&question) {
            // From here on it may miss a push: whoever asks now gets another.
            *turns = Turns { last_began: Some(Instant::now()), next: None };
        }
        let listed = self.remote.list(&question.clone_url, &question.prefixes, login.as_ref()).await;
        listed.map(Arc::new).map_err(Arc::new)
    }
}
