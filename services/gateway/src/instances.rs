//! The state of every instance, from ws-manager's watch: nothing here polls, and a workspace that stops is known at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_api_types::internal::{InstanceEvent, InstanceStatus};
use berth_api_types::public::Phase;
use berth_http::InternalClient;
use berth_ids::InstanceId;
use futures::StreamExt as _;
use tokio::sync::watch;

/// What is known of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    pub(crate) node: Option<String>,
    version: u64,
}

type Slot = watch::Sender<Option<Known>>;

/// The instances.
#[derive(Debug, Default)]
pub(crate) struct Instances(Mutex<HashMap<InstanceId, Slot>>);

impl Instances {
    /// The state of one instance; `None` until ws-manager has reported it.
    pub(crate) fn subscribe(&self, id: InstanceId) -> watch::Receiver<Option<Known>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Follows ws-manager's watch for ever.
    pub(crate) async fn follow(&self, ws_manager: &InternalClient) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.follow_once(ws_manager).await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the watch of instances broke; it is taken up again"
                    );
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn follow_once(&self, ws_manager: &InternalClient) -> Result<(), berth_http::CallError> {
        let mut events = ws_manager.events::<InstanceEvent>("/internal/instances/watch").await?;
        let mut listed = Some(HashSet::new());
        while let Some(event) = events.next().await {
            match event? {
                InstanceEvent::Status(status) => {
                    if let Some(listed) = listed.as_mut() {
                        listed.insert(status.instance_id);
                    }
                    self.learn(*status);
                }
                InstanceEvent::Synced => {
                    if let Some(listed) = listed.take() {
                        self.keep_only(&listed);
                    }
                }
                InstanceEvent::Gone { instance_id } => self.forget(instance_id),
            }
        }
        Ok(())
    }

    fn learn(&self, status: InstanceStatus) {
        let known = Known { phase: status.phase, reason: status.reason, node: status.node, version: status.version };
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(status.instance_id).or_insert_with(|| watch::Sender::new(None)).send_if_modified(|slot| {
            let news = slot.as_ref().is_none_or(|old| old.version < known.version);
            if news {
                *slot = Some(known);
            }
            news
        });
    }

    fn forget(&self, id: InstanceId) {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(slot) = slot {
            over(&slot);
        }
    }

    /// After a list: what is not in it does not exist, unless somebody waits for it to appear.
    fn keep_only(&self, listed: &HashSet<InstanceId>) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|id, slot| {
            let keep = listed.contains(id) || slot.borrow().is_none() && slot.receiver_count() > 0;
            if !keep {
                over(slot);
            }
            keep
        });
    }
}

fn over(slot: &Slot) {
    slot.send_modify(|known| {
        let reason = known.take().map(|known| known.reason).unwrap_or_default();
        *known = Some(Known { phase: Phase::Stopped, reason, node: None, version: u64::MAX });
    });
}

/// Resolves with the reason when the instance begins to stop.
pub(crate) async fn stopping(mut news: watch::Receiver<Option<Known>>) -> String {
    let found = news.wait_for(|known| known.as_ref().is_some_and(|known| known.phase >= Phase::Stopping)).await;
    found.ok().and_then(|known| known.as_ref().map(|known| known.reason.clone())).unwrap_or_default()
}

/// Resolves when nothing of the instance runs any more.
pub(crate) async fn stopped(mut news: watch::Receiver<Option<Known>>) {
    // A dropped sender means that the instance is gone.
    news.wait_for(|known| known.as_ref().is_some_and(|known| known.phase == Phase::Stopped)).await.ok();
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Shared.
pub(crate) type SharedInstances = Arc<Instances>;
