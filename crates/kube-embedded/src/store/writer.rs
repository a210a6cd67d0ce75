//! The one task that writes.
//!
//! It takes what is queued as one batch, checks each proposal against the committed state and the batch so far, gives
//! revisions, commits once, applies, wakes watchers, answers. While the backend syncs a batch the next one gathers.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot, watch};

use super::backend::{Backend, Batch};
use super::object::{Address, CollectionName, Key, Object};
use super::state::State;
use super::{CommitSink, Committed, Expect, Proposal, Refusal, Request, Write, stopped};

/// As many writes as one commit takes; keeps a burst from making everyone wait for one huge transaction.
const BATCH: usize = 256;

struct Planned {
    address: Address,
    revision: u64,
    object: Option<Arc<Object>>,
    reply: oneshot::Sender<Result<Committed, Refusal>>,
}

pub(super) async fn run(
    state: Arc<RwLock<State>>,
    mut backend: Backend,
    mut queue: mpsc::Receiver<Request>,
    commits: CommitSink,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let first = tokio::select! {
            biased;
            request = queue.recv() => match request { Some(request) => request, None => break },
            () = stopped(&mut stop) => {
                queue.close();
                match queue.recv().await { Some(request) => request, None => break }
            }
        };
        let mut requests = vec![first];
        while requests.len() < BATCH
            && let Ok(request) = queue.try_recv()
        {
            requests.push(request);
        }
        let (planned, batch) = plan(&state.read().unwrap_or_else(PoisonError::into_inner), requests);
        if planned.is_empty() {
            continue;
        }
        match backend.commit(batch, &mut stop).await {
            Ok(()) => publish(&state, planned, &commits),
            Err(error) => {
                tracing::error!(%error, "the store did not take a commit");
                for planned in planned {
                    // A client that hung up does not read its answer.
                    let _ = planned.reply.send(Err(Refusal::Unavailable(error.to_string())));
                }
            }
        }
    }
    backend.close().await;
}

/// Checks the requests in order; those that cannot be carried out are answered here.
fn plan(state: &State, requests: Vec<Request>) -> (Vec<Planned>, Batch) {
    let base = state.revision();
    let mut revision = base;
    let mut planned: Vec<Planned> = Vec::with_capacity(requests.len());
    let mut latest: HashMap<Address, Option<Arc<Object>>> = HashMap::new();
    for Request { proposal, reply } in requests {
        match check(state, &latest, &proposal) {
            Ok(()) => {
                revision += 1;
                let object = match &proposal.write {
                    Write::Put(draft) => Some(Arc::new(draft.commit(proposal.address.key.clone(), revision))),
                    Write::Delete => None,
                };
                latest.insert(proposal.address.clone(), object.clone());
                planned.push(Planned { address: proposal.address, revision, object, reply });
            }
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
            }
        }
    }
    let mut batch = Batch { base, last: revision, ..Batch::default() };
    // Of several writes to one object in a batch only the last is kept durable: nobody has seen the others yet.
    for (address, object) in latest {
        match object {
            Some(object) => batch.puts.push((address, object)),
            None => batch.deletes.push(address),
        }
    }
    (planned, batch)
}

fn check(state: &State, latest: &HashMap<Address, Option<Arc<Object>>>, proposal: &Proposal) -> Result<(), Refusal> {
    let find = |address: &Address| match latest.get(address) {
        Some(pending) => pending.clone(),
        None => state.get(&address.collection, &address.key).cloned(),
    };
    if let Some(namespace) = &proposal.needs_namespace {
        let address = Address { collection: CollectionName::from("namespaces"), key: Key::new("", namespace) };
        match find(&address) {
            None => return Err(Refusal::NamespaceMissing),
            Some(object) if object.facts.deleting => return Err(Refusal::NamespaceTerminating),
            Some(_) => {}
        }
    }
    match (proposal.expect, find(&proposal.address)) {
        (Expect::Absent, Some(object)) => Err(Refusal::Exists(object)),
        (Expect::Revision(expected), Some(object)) if object.revision == expected => Ok(()),
        (Expect::Revision(_), _) => Err(Refusal::Changed),
        (Expect::Absent, None) => Ok(()),
    }
}

fn publish(state: &RwLock<State>, planned: Vec<Planned>, commits: &CommitSink) {
    let mut answers = Vec::with_capacity(planned.len());
    let mut touched: Vec<CollectionName> = Vec::new();
    {
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        for Planned { address, revision, object, reply } in planned {
            if let Some(event) = state.apply(&address, revision, object) {
                if !touched.contains(&address.collection) {
                    touched.push(address.collection.clone());
                }
                answers.push((reply, event.object.clone()));
                // The reacting task ends only with the server.
                let _ = commits.send((address.collection, event));
            }
        }
        for collection in &touched {
            state.wake(collection);
        }
    }
    for (reply, object) in answers {
        let _ = reply.send(Ok(object));
    }
}
