//! Git credentials: asked for by the helper inside a workspace, answered from outside, over the supervisor's socket only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_supervisor_client::Incoming;
use berth_supervisor_protocol::{Control, CredentialRequest, Event, Reply, Request, Secret};

use crate::supervisor;

/// Who asks, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialQuery {
    /// The instance whose supervisor asked.
    pub instance_id: String,
    /// Its owner.
    pub owner_id: String,
    /// The host that git wants to talk to, as git names it.
    pub host: String,
    /// Host of the repository the workspace was made for.
    pub repository_host: String,
    /// `https` or `http`.
    pub protocol: String,
}

/// A credential.
#[derive(Debug, Clone)]
pub struct Credential {
    /// User name for basic authentication.
    pub username: String,
    /// Password or token.
    pub password: Secret,
}

/// Where credentials come from: scm, see [`ScmCredentials`](crate::ScmCredentials).
#[async_trait]
pub trait CredentialSource: Send + Sync + std::fmt::Debug {
    /// The owner's credential for that host, if there is one. An error's text is shown to the user by git.
    async fn lookup(&self, query: CredentialQuery) -> Result<Option<Credential>, String>;
}

/// Has no credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

#[async_trait]
impl CredentialSource for NoCredentials {
    async fn lookup(&self, _query: CredentialQuery) -> Result<Option<Credential>, String> {
        Ok(None)
    }
}

/// Whom a workspace's questions are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) instance_id: String,
    pub(crate) owner_id: String,
    pub(crate) repository_host: String,
}

/// Git waits twenty seconds.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before a broken connection is made again: a workspace that hangs up again and again costs next to nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers the questions of the workspace in `folder` until it is dropped. The first connection is made before anything runs inside, so that
/// the checkout already finds an answer.
pub(crate) async fn serve(folder: PathBuf, asker: Asker, source: Arc<dyn CredentialSource>) {
    loop {
        if let Err(error) = connection(&folder, &asker, source.as_ref()).await {
            tracing::debug!(
                instance = asker.instance_id,
                error = berth_http::problem::chain(&error),
                "the credential connection ended"
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connection(
    folder: &std::path::Path,
    asker: &Asker,
    source: &dyn CredentialSource,
) -> Result<(), berth_supervisor_client::ClientError> {
    let mut client = supervisor::client(folder).await?;
    match client.request(&Request::CredentialsServe).await? {
        Reply::Ready => {}
        _ => return Ok(()),
    }
    while let Some(incoming) = client.receive().await? {
        let Incoming::Event(Event::CredentialRequest(request)) = incoming else { continue };
        let id = request.id;
        let answer = match tokio::time::timeout(LOOKUP_TIMEOUT, answer(asker, request, source)).await {
            Ok(Ok(credential)) => {
                Control::CredentialReply { id, username: credential.username, password: credential.password }
            }
            Ok(Err(reason)) => Control::CredentialDeny { id, reason },
            Err(_) => {
                Control::CredentialDeny { id, reason: "the credential could not be looked up in time".to_owned() }
            }
        };
        client.control(&answer).await?;
    }
    Ok(())
}

async fn answer(
    asker: &Asker,
    request: CredentialRequest,
    source: &dyn CredentialSource,
) -> Result<Credential, String> {
    // The question comes out of the workspace and is untrusted: it is answered for the one host only, whatever it says.
    if !request.host.eq_ignore_ascii_case(&asker.repository_host) {
        return Err(format!(
            "credentials are given for {} only, not for {}",
            asker.repository_host,
            printable(&request.host)
        ));
    }
    let query = CredentialQuery {
        instance_id: asker.instance_id.clone(),
        owner_id: asker.owner_id.clone(),
        host: asker.repository_host.clone(),
        repository_host: asker.repository_host.clone(),
        protocol: request.protocol,
    };
    let host = &asker.repository_host;
    source
        .lookup(query)
        .await?
        .ok_or_else(|| format!("you have no credential for {host}: add one with `berth git-credential add {host}`"))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
