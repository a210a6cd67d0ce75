//! Writes what happened to instances as Kubernetes events, behind the controller's back: no write of a start waits for one, and one that
//! cannot be written is lost. The API server forgets them after an hour.

use berth_workspace_crd::Workspace;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use tokio::sync::{Mutex, mpsc};

use crate::cluster::MANAGER;
use crate::domain::happening::Happening;

/// More than this many wait only if the API server is away; then the newest are lost.
const WAITING: usize = 1024;

/// Takes what happened; [`Happenings::write`] writes it.
#[derive(Debug)]
pub(crate) struct Happenings {
    sender: mpsc::Sender<(ObjectReference, Happening)>,
    receiver: Mutex<mpsc::Receiver<(ObjectReference, Happening)>>,
}

impl Default for Happenings {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl Happenings {
    /// Takes one; never waits.
    pub(crate) fn tell(&self, workspace: &Workspace, happening: Happening) {
        if let Err(mpsc::error::TrySendError::Full((about, lost))) =
            self.sender.try_send((workspace.object_ref(&()), happening))
        {
            tracing::debug!(
                instance = about.name,
                reason = lost.reason,
                "an event is lost: too many wait to be written"
            );
        }
    }

    /// Writes them one after the other, for ever.
    pub(crate) async fn write(&self, client: Client, identity: &str) {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let mut receiver = self.receiver.lock().await;
        while let Some((about, happening)) = receiver.recv().await {
            let Happening { is_warning, reason, note, action } = happening;
            let type_ = if is_warning { EventType::Warning } else { EventType::Normal };
            let event = Event { type_, reason, note: Some(note), action: action.to_owned(), secondary: None };
            if let Err(error) = recorder.publish(&event, &about).await {
                tracing::debug!(
                    instance = about.name,
                    error = &error as &dyn std::error::Error,
                    "an event could not be written"
                );
            }
        }
    }
}
