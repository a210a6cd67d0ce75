//! Watches: a stream of events out of a collection's history.
//!
//! A watcher has no buffer of its own but a position in the shared history, so a slow one costs nothing and, when its
//! position falls off the end, is told so (410 in the stream) instead of growing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::output::negotiate::{Form, Shape};
use crate::output::table::{self, Include};
use crate::registry::Resource;
use crate::selector::Selector;
use crate::server::Api;
use crate::store::object::Object;
use crate::store::state::{Change, Event, event_line};
use crate::store::stopped;
use crate::view;

/// How often a watcher is told the current revision (bookmark).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before the end of a watch it is told once more.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// As many events as are taken out of the history at once.
const CHUNK: usize = 256;

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With an ADDED for each present object, and an end mark if asked for.
    Initial { end_mark: bool },
    /// After this revision.
    After(u64),
}

pub(crate) struct Options {
    pub(crate) resource: Arc<Resource>,
    /// `None`: all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) selector: Selector,
    pub(crate) start: Start,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
    pub(crate) form: Form,
    pub(crate) include: Include,
}

enum Next {
    Line(Bytes),
    Initial(Arc<Object>),
}

pub(crate) struct Watcher {
    api: Arc<Api>,
    options: Options,
    cursor: u64,
    queue: VecDeque<Next>,
    started: bool,
    ended: bool,
    /// A Table's columns are sent once.
    columns_sent: bool,
    changed: watch::Receiver<u64>,
    registry: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    ends_at: Instant,
    bookmark_at: Instant,
    last_bookmark_sent: bool,
}

impl Watcher {
    pub(crate) fn new(api: Arc<Api>, options: Options) -> Self {
        api.objects.open_collection(&options.resource.collection);
        let changed = match api.objects.read().collection(&options.resource.collection) {
            Some(collection) => collection.subscribe(),
            // It was just opened; if it did not exist, the watcher would see nothing but its end.
            None => watch::Sender::new(0).subscribe(),
        };
        let now = Instant::now();
        Self {
            changed,
            registry: api.registry.subscribe(),
            stopping: api.stopping.clone(),
            cursor: 0,
            queue: VecDeque::new(),
            started: false,
            ended: false,
            columns_sent: false,
            ends_at: now + options.timeout,
            bookmark_at: now + BOOKMARK_EVERY,
            last_bookmark_sent: false,
            api,
            options,
        }
    }

    /// The next line, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if !self.started {
            self.started = true;
            self.begin();
        }
        loop {
            match self.queue.pop_front() {
                Some(Next::Line(line)) => return Some(line),
                Some(Next::Initial(object)) => return Some(self.line(Change::Added, &object)),
                None if self.ended => return None,
                None => {}
            }
            if !self.take_events() {
                self.wait().await;
            }
        }
    }

    fn begin(&mut self) {
        match self.options.start {
            Start::After(revision) => self.cursor = revision,
            Start::Initial { end_mark } => {
                {
                    let state = self.api.objects.read();
                    self.cursor = state.revision();
                    if let Some(collection) = state.collection(&self.options.resource.collection) {
                        let namespace = self.options.namespace.as_deref();
                        let present = collection.range(namespace, None);
                        let selector = &self.options.selector;
                        self.queue
                            .extend(present.filter(|object| selector.matches(object)).cloned().map(Next::Initial));
                    }
                }
                if end_mark && self.options.bookmarks {
                    let line = self.bookmark(true);
                    self.queue.push_back(Next::Line(line));
                }
            }
        }
    }

    /// Queues the events after the cursor; false if there are none.
    fn take_events(&mut self) -> bool {
        let (events, revision, floor) = {
            let state = self.api.objects.read();
            match state.collection(&self.options.resource.collection) {
                Some(collection) => (collection.events_after(self.cursor, CHUNK), state.revision(), collection.floor()),
                None => (Some(Vec::new()), state.revision(), 0),
            }
        };
        let Some(events) = events else {
            let error = ApiError::expired(format!("too old resource version: {} ({floor})", self.cursor));
            self.fail(&error);
            return true;
        };
        match events.last() {
            Some(last) => self.cursor = last.revision,
            None => {
                // Nothing of this kind happened up to `revision`: a later resume need not look before it.
                self.cursor = self.cursor.max(revision);
                return false;
            }
        }
        for event in events {
            if let Some(line) = self.select(&event) {
                self.queue.push_back(Next::Line(line));
            }
        }
        true
    }

    fn fail(&mut self, error: &ApiError) {
        let line = event_line("ERROR", error.status().to_string().as_bytes());
        self.queue.push_back(Next::Line(line));
        self.ended = true;
    }

    fn select(&mut self, event: &Event) -> Option<Bytes> {
        if self.options.namespace.as_deref().is_some_and(|namespace| namespace != &*event.object.key.namespace) {
            return None;
        }
        if self.options.selector.is_empty() {
            return Some(self.event(event));
        }
        let selector = &self.options.selector;
        let was = event.before.as_ref().is_some_and(|before| selector.matches(before));
        let is = selector.matches(&event.object);
        match event.change {
            Change::Added => is.then(|| self.event(event)),
            Change::Deleted => was.then(|| self.event(event)),
            Change::Modified => match (was, is, &event.before) {
                (true, true, _) => Some(self.event(event)),
                (false, true, _) => Some(self.line(Change::Added, &event.object)),
                (true, false, Some(before)) => Some(self.line(Change::Deleted, &before.at_revision(event.revision))),
                _ => None,
            },
        }
    }

    fn event(&mut self, event: &Event) -> Bytes {
        if self.options.form.shape == Shape::Plain && view::is_stored_form(&self.options.resource) {
            event.line()
        } else {
            self.line(event.change, &event.object)
        }
    }

    fn line(&mut self, change: Change, object: &Object) -> Bytes {
        let resource = self.options.resource.clone();
        match self.options.form.shape {
            Shape::Plain | Shape::PartialList => event_line(change.name(), &view::json(&resource, object)),
            Shape::Partial => {
                let partial = table::partial(&view::value(&resource, object));
                event_line(change.name(), partial.to_string().as_bytes())
            }
            Shape::Table => {
                let value = view::value(&resource, object);
                let metadata = json!({ "resourceVersion": object.revision.to_string() });
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                let now = self.api.clock.now();
                let table = table::table(&resource, &[value], metadata, self.options.include, columns, now);
                event_line(change.name(), table.to_string().as_bytes())
            }
        }
    }

    fn bookmark(&self, end_of_initial: bool) -> Bytes {
        let resource = &self.options.resource;
        let mut metadata = json!({ "resourceVersion": self.cursor.to_string(), "creationTimestamp": null });
        if end_of_initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object: Value = match self.options.form.shape {
            Shape::Partial => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            Shape::Table => {
                let object = json!({ "metadata": metadata });
                let row = json!({ "cells": [], "object": table::partial(&object) });
                json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": null,
                    "metadata": { "resourceVersion": self.cursor.to_string() }, "rows": [row],
                })
            }
            Shape::Plain | Shape::PartialList => {
                json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata })
            }
        };
        event_line("BOOKMARK", object.to_string().as_bytes())
    }

    /// Waits for something to do, and does what is due.
    async fn wait(&mut self) {
        let before_end = self.ends_at - LAST_BOOKMARK.min(self.options.timeout);
        let bookmark_at = if self.last_bookmark_sent { self.bookmark_at } else { self.bookmark_at.min(before_end) };
        tokio::select! {
            // The sender lives in the state, which this watcher's handle keeps alive.
            _ = self.changed.changed() => {}
            _ = self.registry.changed() => {
                let table = self.api.registry.table();
                let resource = &self.options.resource;
                let current = table.get(&resource.group, &resource.version, &resource.plural);
                // A changed CRD has other bytes for the same objects; the client resumes against the new ones.
                self.ended = !current.is_some_and(|current| Arc::ptr_eq(current, resource));
            }
            () = stopped(&mut self.stopping) => self.ended = true,
            () = tokio::time::sleep_until(self.ends_at) => self.ended = true,
            () = tokio::time::sleep_until(bookmark_at), if self.options.bookmarks => {
                let line = self.bookmark(false);
                self.queue.push_back(Next::Line(line));
                let now = Instant::now();
                self.bookmark_at = now + BOOKMARK_EVERY;
                self.last_bookmark_sent |= now >= before_end;
            }
        }
    }
}
