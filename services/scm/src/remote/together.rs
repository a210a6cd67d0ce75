//! Identical requests to a host are sent once; see [`berth_service::Together`].

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::{Listing, Login, Remote, RemoteError};

/// A git host answers in about this time.
const SPACING: Duration = Duration::from_millis(25);

type Answer = Result<Arc<Listing>, Arc<RemoteError>>;

/// What is asked, and as whom: what one user may see is shown to nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    clone_url: String,
    prefixes: Vec<String>,
    /// SHA-256 of the user name and password.
    login: Option<[u8; 32]>,
}

/// Queries a host for refs, together with everybody who asks the same at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Together {
    remote: Arc<Remote>,
    questions: berth_service::Together<Question, Answer>,
}

impl Together {
    pub(crate) fn new(remote: Arc<Remote>) -> Self {
        Self { remote, questions: berth_service::Together::new(SPACING) }
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
        let (remote, login) = (Arc::clone(&self.remote), login.cloned());
        let ask = |question: Question| async move {
            let listed = remote.list(&question.clone_url, &question.prefixes, login.as_ref()).await;
            listed.map(Arc::new).map_err(Arc::new)
        };
        self.questions.ask(question, ask).await
    }
}
