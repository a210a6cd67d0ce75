//! The content of an instance: the checkout, once per disk, and the image that the checkout asks for.

use std::sync::Arc;
use std::time::Duration;

use berth_http::problem::chain;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::node::{Instance, Node};
use super::record::StartRequest;
use super::start::{Ready, StartError};
use super::steps::Steps;
use crate::checkout;

/// Longest time for berth-init to answer once its program runs.
const HELLO_TIMEOUT: Duration = Duration::from_secs(60);

impl Node {
    /// Makes the content, once per disk; then waits for the supervisor's answer.
    pub(super) fn content<'s>(
        &'s self,
        instance: Arc<Instance>,
        request: &'s StartRequest,
        steps: &'s Steps,
        cancel: &'s CancellationToken,
    ) -> BoxFuture<'s, Result<Ready, StartError>> {
        Box::pin(self.make_content(instance, request, steps, cancel))
    }

    async fn make_content(
        &self,
        instance: Arc<Instance>,
        request: &StartRequest,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<Ready, StartError> {
        let mut instance = instance;
        let (initialized, fresh) =
            instance.with_disk(|disk| (disk.record.initialized, disk.fresh)).unwrap_or((true, false));
        if !initialized {
            let step = steps.begin("checkout");
            let tell = step.teller();
            self.make_checkout(&instance, request, fresh, tell.as_ref()).await?;
            let mut wishes = checkout::wishes(&instance.folder, &request.checkout, request.image.is_none()).await?;
            if let Some(image) = wishes.image {
                tell(format!("devcontainer.json wants the image {image}: starting again in it"));
                instance = self.change_image(request, &image, steps, cancel).await?;
                self.make_checkout(&instance, request, true, tell.as_ref()).await?;
                wishes.notes.insert(0, format!("in the image {image} of devcontainer.json"));
            }
            if !wishes.notes.is_empty() {
                tell(wishes.notes.join("; "));
            }
        }
        let step = steps.begin("ready");
        let hello = async {
            let mut client = crate::supervisor::client(&instance.folder).await?;
            client.hello().await
        };
        match tokio::time::timeout(HELLO_TIMEOUT, hello).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(StartError::Supervisor(error)),
            Err(_) => return Err(StartError::Supervisor(berth_supervisor_client::ClientError::Closed)),
        }
        instance
            .update(|record| record.ready = true)
            .map_err(|source| StartError::File { path: instance.folder.display().to_string(), source })?;
        drop(step);
        if !initialized {
            // From here on the content is the user's. The marker must not reach the disk before the content does, and that can take a while:
            // until then the instance's record says that it is there.
            let marked = instance.clone();
            tokio::task::spawn_blocking(move || {
                let done =
                    marked.with_disk(|disk| disk.sync().and_then(|()| disk.update(|record| record.initialized = true)));
                if let Some(Err(error)) = done {
                    tracing::error!(error = chain(&error), "a new workspace's content cannot be written down");
                }
            });
        }
        let image = instance.record().image.unwrap_or_default();
        Ok(Ready { instance, image })
    }

    async fn make_checkout(
        &self,
        instance: &Instance,
        request: &StartRequest,
        fresh: bool,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), StartError> {
        if !fresh {
            // An earlier start was interrupted, perhaps by a power cut. What it left may already be a user's work: it is moved, not removed.
            checkout::set_aside(&instance.folder, &request.checkout.path, self.inner.clock.now().timestamp()).await?;
        }
        let limit = Duration::from_secs(self.inner.config.checkout_timeout_seconds);
        let user = instance.record().user;
        let made =
            checkout::run(&instance.folder, &request.checkout, &user, &request.allow_private_hosts, limit, tell).await;
        if made.is_err() {
            // Not worth more than a try: the container may be gone.
            let _ = checkout::clean(&instance.folder, &request.checkout.path).await;
        }
        Ok(made?)
    }

    /// The same instance in another image, on an empty disk: nothing of a user is on it yet.
    async fn change_image(
        &self,
        request: &StartRequest,
        image: &str,
        steps: &Steps,
        cancel: &CancellationToken,
    ) -> Result<Arc<Instance>, StartError> {
        // Looked for first: if the image does not exist, nothing has been stopped for it.
        {
            let step = steps.begin("image");
            self.inner.images.get(image, &self.registries(request), step.teller()).await?;
        }
        self.stop(&request.instance_id, Duration::from_millis(500)).await;
        self.forget(&request.instance_id);
        let (disks, workspace, size) =
            (self.inner.disks.clone(), request.workspace_id.clone(), request.limits.disk_bytes);
        tokio::task::spawn_blocking(move || {
            disks.delete(&workspace).and_then(|()| disks.take(&workspace, size).map(drop))
        })
        .await
        .map_err(|_| StartError::Broken("disk"))??;
        self.container(request, Some(image), steps, cancel).await
    }
}
