//! The instances as other services see them: the current state, and each change of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_api_types::internal::{InstanceEvent, InstanceStatus};
use berth_ids::{InstanceId, WorkspaceId};
use berth_workspace_crd::Workspace;
use futures::{Stream, StreamExt as _};
use tokio::sync::broadcast;

use crate::cache::Change;
use crate::domain::instance;

/// How many changes a reader may be behind before it is cut off. It then asks for the list again.
const BACKLOG: usize = 4096;

/// Published statuses and their readers.
#[derive(Debug)]
pub(crate) struct Directory(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    statuses: HashMap<InstanceId, Arc<InstanceStatus>>,
    changes: broadcast::Sender<Arc<InstanceEvent>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self(Mutex::new(Inner { statuses: HashMap::new(), changes: broadcast::Sender::new(BACKLOG) }))
    }
}

impl Directory {
    /// Publishes a change of an object, unless nobody needs it: marks of activity, each half minute for each workspace, would be most of the
    /// traffic.
    pub(crate) fn publish(&self, change: &Change<Workspace>) {
        let Some(workspace) = change.new.as_deref().or(change.old.as_deref()) else { return };
        let status = match instance::of(workspace) {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "an object is ignored");
                return;
            }
        };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if change.new.is_none() {
            if inner.statuses.remove(&status.instance_id).is_some() {
                inner.send(InstanceEvent::Gone { instance_id: status.instance_id });
            }
            return;
        }
        let known = inner.statuses.get(&status.instance_id);
        if known.is_some_and(|known| known.version >= status.version) {
            return;
        }
        let is_news = known.is_none_or(|known| differs(known, &status));
        inner.statuses.insert(status.instance_id, Arc::new(status.clone()));
        if is_news {
            inner.send(InstanceEvent::Status(Box::new(status)));
        }
    }

    /// The statuses of one workspace's instances.
    pub(crate) fn list_of(&self, workspace: WorkspaceId) -> Vec<Arc<InstanceStatus>> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.statuses.values().filter(|status| status.workspace_id == workspace).cloned().collect()
    }

    /// Every status, by id.
    pub(crate) fn list(&self) -> Vec<InstanceStatus> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = inner.statuses.values().map(|status| InstanceStatus::clone(status)).collect();
        all.sort_by_key(|status| status.instance_id);
        all
    }

    /// The list, `Synced`, then each change. Ends when the reader is too slow: it connects again and gets the list.
    pub(crate) fn watch(&self) -> impl Stream<Item = InstanceEvent> + Send + use<> {
        let (statuses, changes) = {
            // Under one lock: no change falls between list and subscription.
            let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (inner.statuses.values().cloned().collect::<Vec<_>>(), inner.changes.subscribe())
        };
        let list = statuses.into_iter().map(|status| InstanceEvent::Status(Box::new(InstanceStatus::clone(&status))));
        let list = list.chain(std::iter::once(InstanceEvent::Synced));
        let news = futures::stream::unfold(changes, |mut changes| async move {
            match changes.recv().await {
                Ok(event) => Some((InstanceEvent::clone(&event), changes)),
                Err(broadcast::error::RecvError::Closed | broadcast::error::RecvError::Lagged(_)) => None,
            }
        });
        futures::stream::iter(list).chain(news)
    }
}

impl Inner {
    fn send(&self, event: InstanceEvent) {
        // Nobody listens: nobody misses it.
        self.changes.send(Arc::new(event)).ok();
    }
}

fn differs(old: &InstanceStatus, new: &InstanceStatus) -> bool {
    let comparable = |status: &InstanceStatus| InstanceStatus { version: 0, last_activity: None, ..status.clone() };
    comparable(old) != comparable(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_workspace_crd::Phase;

    fn workspace(version: u64, change: impl FnOnce(&mut Workspace)) -> Arc<Workspace> {
        let mut workspace = crate::domain::tests::workspace();
        workspace.metadata.resource_version = Some(version.to_string());
        change(&mut workspace);
        Arc::new(workspace)
    }

    fn news(directory: &Directory, new: Arc<Workspace>) {
        directory.publish(&Change { old: None, new: Some(new) });
    }

    #[tokio::test]
    async fn a_reader_gets_the_list_then_news_and_no_heartbeats() {
        let directory = Directory::default();
        news(&directory, workspace(3, |_| {}));
        let mut watch = Box::pin(directory.watch());
        assert!(matches!(watch.next().await, Some(InstanceEvent::Status(status)) if status.version == 3));
        assert_eq!(watch.next().await, Some(InstanceEvent::Synced));

        news(
            &directory,
            workspace(5, |w| w.status.get_or_insert_default().last_activity = Some("2026-01-01T00:00:00Z".into())),
        );
        news(&directory, workspace(4, |w| w.status.get_or_insert_default().phase = Phase::Creating));
        news(&directory, workspace(6, |w| w.status.get_or_insert_default().phase = Phase::Running));
        let event = watch.next().await;
        assert!(matches!(&event, Some(InstanceEvent::Status(status)) if status.version == 6), "{event:?}");

        directory.publish(&Change { old: Some(workspace(7, |_| {})), new: None });
        assert!(matches!(watch.next().await, Some(InstanceEvent::Gone { .. })));
        assert!(directory.list().is_empty());
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_cut_off() {
        let directory = Directory::default();
        let watch = directory.watch();
        for version in 1..=u64::try_from(BACKLOG).unwrap() + 10 {
            news(&directory, workspace(version, |w| w.status.get_or_insert_default().reason = version.to_string()));
        }
        let events: Vec<_> = watch.collect().await;
        assert_eq!(events, [InstanceEvent::Synced]);
    }
}
