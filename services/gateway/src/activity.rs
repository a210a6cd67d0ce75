//! Keeps a workspace from being stopped as idle while its user types. ws-manager is told now and then, not at each key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_http::InternalClient;
use berth_ids::InstanceId;
use tokio::time::Instant;

/// At most one mark in this time for each instance.
const PAUSE: Duration = Duration::from_secs(30);
/// Entries before old ones are dropped.
const SWEEP_ABOVE: usize = 1024;

#[derive(Debug)]
pub(crate) struct Activity {
    ws_manager: InternalClient,
    marked: Mutex<HashMap<InstanceId, Instant>>,
}

impl Activity {
    pub(crate) fn new(ws_manager: InternalClient) -> Self {
        Self { ws_manager, marked: Mutex::default() }
    }

    /// Marks activity of the user. Returns at once.
    pub(crate) fn mark(&self, instance: InstanceId) {
        let now = Instant::now();
        {
            let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
            if marked.get(&instance).is_some_and(|last| now.duration_since(*last) < PAUSE) {
                return;
            }
            if marked.len() > SWEEP_ABOVE {
                marked.retain(|_, last| now.duration_since(*last) < PAUSE);
            }
            marked.insert(instance, now);
        }
        let client = self.ws_manager.clone();
        tokio::spawn(async move {
            let path = format!("/internal/instances/{instance}/activity");
            if let Err(error) = client.post_empty(&path, &serde_json::json!({})).await {
                tracing::debug!(%instance, error = &error as &dyn std::error::Error, "activity could not be marked");
            }
        });
    }
}
