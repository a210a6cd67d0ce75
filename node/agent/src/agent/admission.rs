//! Admission: who may start now. First come, first served, in a queue that users can see; what can never fit is refused.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// What the machine has, and what is kept back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Upper bound for the sum of the memory limits of workspaces.
    pub memory_bytes: u64,
    /// Memory of the machine without what is reserved: no single workspace may have more.
    pub largest_memory_bytes: u64,
    /// Free disk below which nothing starts.
    pub min_free_disk_bytes: u64,
    /// Free memory below which nothing starts.
    pub min_free_memory_bytes: u64,
    /// Size of the file system that the disks lie on: no disk may be larger.
    pub disk_bytes: u64,
    /// Instances.
    pub instances: usize,
}

/// What the machine has free now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    /// Memory that is available without swapping.
    pub memory_bytes: u64,
    /// Disk.
    pub disk_bytes: u64,
}

/// What one instance wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    /// Its memory limit.
    pub memory_bytes: u64,
    /// Size of its disk; compared with the whole file system only, since disks are sparse.
    pub disk_bytes: u64,
}

/// Why an instance does not start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Fits,
    /// It may later.
    Wait(String),
    /// It never may, on this machine.
    Never(String),
}

/// The rule, pure.
#[must_use]
pub(super) fn judge(capacity: &Capacity, free: &Free, used_bytes: u64, running: usize, demand: &Demand) -> Verdict {
    let mb = |bytes: u64| bytes.div_ceil(1 << 20);
    if demand.memory_bytes > capacity.largest_memory_bytes {
        let (wants, has) = (mb(demand.memory_bytes), mb(capacity.largest_memory_bytes));
        return Verdict::Never(format!(
            "the class wants {wants} MiB of memory, this machine has {has} MiB for workspaces: choose a smaller class"
        ));
    }
    if demand.disk_bytes > capacity.disk_bytes {
        let (wants, has) = (mb(demand.disk_bytes), mb(capacity.disk_bytes));
        return Verdict::Never(format!(
            "the class wants a disk of {wants} MiB, this machine's is {has} MiB: choose a smaller class"
        ));
    }
    if capacity.min_free_disk_bytes >= capacity.disk_bytes {
        let (floor, has) = (mb(capacity.min_free_disk_bytes), mb(capacity.disk_bytes));
        return Verdict::Never(format!(
            "this machine's disk is {has} MiB and {floor} MiB of it must stay free: lower `node.min_free_disk_bytes` or add disk"
        ));
    }
    if running >= capacity.instances {
        return Verdict::Wait(format!("{running} workspaces run, which is as many as this machine may have"));
    }
    if used_bytes.saturating_add(demand.memory_bytes) > capacity.memory_bytes {
        let left = mb(capacity.memory_bytes.saturating_sub(used_bytes));
        return Verdict::Wait(format!(
            "{left} MiB of memory are left to give, the class wants {} MiB",
            mb(demand.memory_bytes)
        ));
    }
    if free.memory_bytes < capacity.min_free_memory_bytes {
        return Verdict::Wait(format!("the machine has only {} MiB of memory free", mb(free.memory_bytes)));
    }
    if free.disk_bytes < capacity.min_free_disk_bytes {
        let (has, wants) = (mb(free.disk_bytes), mb(capacity.min_free_disk_bytes));
        return Verdict::Wait(format!(
            "the machine's disk has only {has} MiB free, below {wants} MiB nothing new starts: delete workspaces or add disk"
        ));
    }
    Verdict::Fits
}

/// The queue.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    capacity: Capacity,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<String, u64>,
    queue: VecDeque<String>,
}

/// A place in the machine; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Admission,
    instance: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.state().running.remove(&self.instance);
        self.admission.inner.changed.notify_waiters();
    }
}

/// A place in the queue; given back when it is dropped.
struct Turn<'a> {
    admission: &'a Admission,
    instance: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.admission.state().queue.retain(|queued| queued != self.instance);
        self.admission.inner.changed.notify_waiters();
    }
}

/// Free memory and disk space change without an event: they are polled this often while somebody waits for them.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl Admission {
    /// An empty machine.
    #[must_use]
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { inner: Arc::new(Inner { capacity, state: Mutex::default(), changed: Notify::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the machine has.
    #[must_use]
    pub(super) fn capacity(&self) -> Capacity {
        self.inner.capacity
    }
    /// The place of an instance that runs already.
    #[must_use]
    pub(super) fn take_over(&self, instance: &str, demand: &Demand) -> Place {
        self.state().running.insert(instance.to_owned(), demand.memory_bytes);
        Place { admission: self.clone(), instance: instance.to_owned() }
    }

    /// Waits for a place. `waiting` gets the position (from 1) and the reason each time either changes.
    ///
    /// # Errors
    /// The reason why it can never have one.
    pub(super) async fn admit(
        &self,
        instance: &str,
        demand: &Demand,
        look: impl Fn() -> Free + Send,
        waiting: &watch::Sender<Option<(usize, String)>>,
    ) -> Result<Place, String> {
        self.state().queue.push_back(instance.to_owned());
        let turn = Turn { admission: self, instance };
        let mut told: Option<(usize, String)> = None;
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change in between is missed.
            changed.as_mut().enable();
            let (position, verdict) = {
                let mut state = self.state();
                let position = state.queue.iter().position(|queued| queued == instance).unwrap_or(0);
                let verdict =
                    judge(&self.inner.capacity, &look(), state.running.values().sum(), state.running.len(), demand);
                if position == 0 && verdict == Verdict::Fits {
                    state.running.insert(instance.to_owned(), demand.memory_bytes);
                    drop(state);
                    drop(turn);
                    return Ok(Place { admission: self.clone(), instance: instance.to_owned() });
                }
                (position, verdict)
            };
            let reason = match verdict {
                Verdict::Never(reason) => return Err(reason),
                Verdict::Wait(reason) => reason,
                Verdict::Fits => "others came first".to_owned(),
            };
            // The free megabytes differ each time; the user is told only of changes that matter.
            if told.as_ref().is_none_or(|(at, why)| *at != position || first_words(why) != first_words(&reason)) {
                waiting.send_replace(Some((position + 1, reason.clone())));
                told = Some((position, reason));
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }
}

fn first_words(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Admission {
        /// Bytes given, who has a place, and who waits.
        fn usage(&self) -> (u64, usize, Vec<String>) {
            let state = self.state();
            (state.running.values().sum(), state.running.len(), state.queue.iter().cloned().collect())
        }
    }

    const GB: u64 = 1 << 30;

    fn capacity() -> Capacity {
        Capacity {
            memory_bytes: 8 * GB,
            largest_memory_bytes: 6 * GB,
            min_free_disk_bytes: GB,
            min_free_memory_bytes: GB,
            disk_bytes: 100 * GB,
            instances: 3,
        }
    }

    const FREE: Free = Free { memory_bytes: 4 * GB, disk_bytes: 50 * GB };

    fn demand(gb: u64) -> Demand {
        Demand { memory_bytes: gb * GB, disk_bytes: 10 * GB }
    }

    #[test]
    fn what_fits_starts_what_may_fit_later_waits_what_never_fits_is_refused() {
        let judged = |free: Free, used, running, wanted: Demand| judge(&capacity(), &free, used, running, &wanted);
        assert_eq!(judged(FREE, 0, 0, demand(6)), Verdict::Fits);
        assert!(matches!(judged(FREE, 0, 0, demand(7)), Verdict::Never(why) if why.contains("smaller class")));
        assert!(matches!(judged(FREE, 0, 0, Demand { disk_bytes: 101 * GB, ..demand(1) }), Verdict::Never(_)));
        let small = Capacity { disk_bytes: GB, min_free_disk_bytes: GB, ..capacity() };
        let wants = Demand { disk_bytes: GB, ..demand(1) };
        let never = judge(&small, &FREE, 0, 0, &wants);
        assert!(matches!(never, Verdict::Never(why) if why.contains("node.min_free_disk_bytes")));
        assert!(matches!(judged(FREE, 7 * GB, 1, demand(2)), Verdict::Wait(_)));
        assert!(matches!(judged(FREE, 0, 3, demand(1)), Verdict::Wait(_)));
        assert!(
            matches!(judged(Free { disk_bytes: 1, ..FREE }, 0, 0, demand(1)), Verdict::Wait(why) if why.contains("disk"))
        );
        assert!(matches!(judged(Free { memory_bytes: 1, ..FREE }, 0, 0, demand(1)), Verdict::Wait(_)));
    }

    #[tokio::test]
    async fn first_come_first_served() {
        let admission = Admission::new(capacity());
        let quiet = watch::Sender::new(None);
        let first = admission.admit("a", &demand(6), || FREE, &quiet).await.unwrap();
        let wait = |name: &'static str, gb: u64| {
            let admission = admission.clone();
            let (told, hear) = watch::channel(None);
            (tokio::spawn(async move { admission.admit(name, &demand(gb), || FREE, &told).await }), hear)
        };
        let (second, mut hear) = wait("b", 6);
        assert_eq!(hear.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().0, 1);
        // It would fit, but others came first.
        let (third, mut hear) = wait("c", 1);
        assert_eq!(hear.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().0, 2);
        drop(first);
        let second = second.await.unwrap().unwrap();
        let third = third.await.unwrap().unwrap();
        assert_eq!(admission.usage().1, 2);
        drop((second, third));
        assert_eq!(admission.usage(), (0, 0, Vec::new()));
        assert!(admission.admit("d", &demand(7), || FREE, &quiet).await.is_err());
        assert!(admission.usage().2.is_empty());
    }
}
