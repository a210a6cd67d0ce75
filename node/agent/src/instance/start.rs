//! Starting an instance: first the container, then the content.

use std::sync::Arc;
use std::time::Duration;

use berth_sandbox::monitor::MonitorError;
use berth_sandbox::rootfs::RootfsError;
use tokio_util::sync::CancellationToken;

use super::node::{Instance, Node};
use super::record::StartRequest;
use super::steps::Steps;
use crate::checkout::{self, CheckoutError};
use crate::container::mount_points::InTheWay;
use crate::disk::DiskError;
use crate::image::ImageError;
use crate::network::LinkError;

/// The instance did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The network.
    #[error(transparent)]
    Network(#[from] LinkError),
    /// The root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The image has something where the workspace's own files go.
    #[error(transparent)]
    InTheWay(#[from] InTheWay),
    /// The container.
    #[error(transparent)]
    Container(#[from] MonitorError),
    /// The content.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The supervisor.
    #[error("the workspace's supervisor does not answer")]
    Supervisor(#[source] berth_supervisor_client::ClientError),
    /// The container ended meanwhile.
    #[error("the workspace's main process ended while it started: {0}")]
    Ended(String),
    /// A file of ours.
    #[error("{path} cannot be written")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread died.
    #[error("the start was interrupted in the step {0}")]
    Broken(&'static str),
    /// A stop was asked for.
    #[error("the start was interrupted, because a stop was asked for")]
    Cancelled,
    /// It ended already.
    #[error("the instance {0} has ended and is not started a second time")]
    Over(String),
}

impl StartError {
    /// Whether the node is at fault and another attempt may succeed; otherwise the user has to change something.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Network(_)
            | Self::Rootfs(_)
            | Self::Container(_)
            | Self::Broken(_)
            | Self::File { .. }
            | Self::Supervisor(_) => true,
            Self::Image(_)
            | Self::Disk(_)
            | Self::InTheWay(_)
            | Self::Checkout(_)
            | Self::Ended(_)
            | Self::Over(_)
            | Self::Cancelled => false,
        }
    }
}

/// Longest time for the end of a container whose supervisor hung up to be known.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// An instance that is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Digest of its image.
    pub image: String,
}

impl Node {
    /// Starts an instance, or continues a start that was interrupted. If it fails or is cancelled, nothing of it is left but its disk. Cancel
    /// it by the token, not by dropping the future: then what is being made is cleared away.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        &self,
        request: StartRequest,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<Ready, StartError> {
        let id = request.instance_id.clone();
        let turn = tokio::select! {
            () = cancel.cancelled() => return Err(StartError::Cancelled),
            turn = self.inner.starting.acquire() => turn,
        };
        let _turn = turn.map_err(|_| StartError::Broken("place"))?;
        let _begun = self.inner.under_way.begin();
        // What is left of an earlier attempt has served its purpose.
        if self
            .instance(&id)
            .is_some_and(|old| old.ended().is_some() && old.record().request.attempt != request.attempt)
        {
            self.forget(&id);
        }
        let instance = match self.instance(&id) {
            Some(instance) if instance.ended().is_some() => return Err(StartError::Over(id)),
            Some(instance) if instance.record().ready => {
                let image = instance.record().image.unwrap_or_default();
                return Ok(Ready { instance, image });
            }
            // An earlier agent got this far. What it began inside begins again.
            Some(instance) => {
                self.open_services(&instance).await?;
                checkout::clean(&instance.folder, &request.checkout.path).await?;
                instance
            }
            None => self.container(&request, request.image.as_deref(), steps, cancel).await?,
        };
        let content = tokio::select! {
            () = cancel.cancelled() => Err(StartError::Cancelled),
            content = self.content(instance, &request, steps, cancel) => content,
        };
        match content {
            Ok(ready) => Ok(ready),
            Err(error) => {
                let hung_up = matches!(
                    error,
                    StartError::Checkout(CheckoutError::Supervisor(_) | CheckoutError::Socket(_))
                        | StartError::Supervisor(_)
                );
                // The supervisor hung up because the container has ended: how it ended is what the user needs, and it is known in a moment.
                let ended = match self.instance(&id) {
                    Some(instance) if hung_up => tokio::time::timeout(END_TIMEOUT, instance.wait_ended()).await.ok(),
                    _ => None,
                };
                self.stop(&id, Duration::from_secs(1)).await;
                Err(ended.map_or(error, |ended| StartError::Ended(super::stop::explain(&ended))))
            }
        }
    }
}
