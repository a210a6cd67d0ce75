//! The node's networks: a pool of ready namespaces, which workspace has which, and what is opened for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::host::{self, addresses};
use super::link::{self, LinkError};
use super::rules::{self, HostTable, Opening, OpeningKind};
use super::slot::{INTERFACE_PREFIX, Slot, Subnets};
use crate::instance::Quiet;

/// The node's networks.
#[derive(Debug, Clone)]
pub struct NetworkPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    subnets: Subnets,
    state: Mutex<State>,
    /// Held while a namespace is made ahead, by a thread that nobody waits for.
    making: Mutex<()>,
    refill: tokio::sync::Notify,
    name_servers: Vec<Ipv4Addr>,
    loopback_name_server: Option<Ipv4Addr>,
    /// Uplinks on which we switched forwarding on, and must switch it off again.
    uplinks: Vec<String>,
    depth: usize,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Slot>,
    /// Slots that are taken or being made.
    taken: BTreeMap<Slot, Vec<Opening>>,
    /// Nothing more is made ahead.
    closed: bool,
}

/// A workspace's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its number.
    pub slot: Slot,
    /// Where the namespace is pinned.
    pub namespace: PathBuf,
    /// The workspace's own address.
    pub address: Ipv4Addr,
    /// The host's address towards it.
    pub gateway: Ipv4Addr,
}

impl NetworkPool {
    /// Takes over the node's networks: those of `live` workspaces keep what is opened for them, all others of ours are removed, and the
    /// packet filter is set. `depth` namespaces are kept ready.
    ///
    /// # Errors
    /// When nft or ip is missing or refuses.
    pub fn open(
        root: PathBuf,
        subnets: Subnets,
        depth: usize,
        live: &[(Slot, Vec<Opening>)],
    ) -> Result<Self, LinkError> {
        let (name_servers, loopback_name_server) = host::name_servers();
        let live_slots: BTreeSet<Slot> = live.iter().map(|(slot, _)| *slot).collect();
        let mut ready = Vec::new();
        for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
            let slot = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Slot);
            match slot {
                Some(slot) if live_slots.contains(&slot) => {}
                Some(slot) if link::is_whole(&entry.path(), slot, subnets) && ready.len() < depth => ready.push(slot),
                Some(slot) => link::remove(&entry.path(), slot, subnets)?,
                None => link::unpin(&entry.path())?,
            }
        }
        // Interfaces whose pin is gone.
        for entry in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let slot = name.strip_prefix(&subnets.prefix()).and_then(|number| number.parse().ok()).map(Slot);
            if let Some(slot) = slot
                && !live_slots.contains(&slot)
                && !ready.contains(&slot)
                && subnets_own(&subnets, &name, slot)
            {
                link::remove(&root.join(slot.0.to_string()), slot, subnets)?;
            }
        }
        let uplinks = host::switch_forwarding_on(&root)?;
        let table =
            HostTable { name_servers: name_servers.clone(), loopback_name_server, uplinks_opened: uplinks.clone() };
        link::nft(&rules::host_table(&table, &subnets, live), "setting the packet filter")?;
        let taken = live.iter().cloned().collect();
        let state = Mutex::new(State { ready, taken, closed: false });
        let inner = Inner {
            root,
            subnets,
            state,
            making: Mutex::default(),
            refill: tokio::sync::Notify::new(),
            name_servers,
            loopback_name_server,
            uplinks,
            depth,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, slot: Slot) -> PathBuf {
        self.inner.root.join(slot.0.to_string())
    }

    /// What belongs to a slot.
    #[must_use]
    pub fn network(&self, slot: Slot) -> Network {
        let subnets = self.inner.subnets;
        Network { slot, namespace: self.path(slot), address: subnets.address(slot), gateway: subnets.gateway(slot) }
    }

    fn reserve(&self) -> Result<Slot, LinkError> {
        let mut state = self.state();
        let free =
            (0..Subnets::MOST).map(Slot).find(|slot| !state.taken.contains_key(slot) && !state.ready.contains(slot));
        let slot = free.ok_or(LinkError::Full(state.taken.len()))?;
        state.taken.insert(slot, Vec::new());
        Ok(slot)
    }

    /// A network for one more workspace: a ready one, or a new one. Blocks some milliseconds in the second case.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn take(&self) -> Result<Network, LinkError> {
        let ready = {
            let mut state = self.state();
            let slot = state.ready.pop();
            if let Some(slot) = slot {
                state.taken.insert(slot, Vec::new());
            }
            slot
        };
        self.inner.refill.notify_one();
        if let Some(slot) = ready {
            return Ok(self.network(slot));
        }
        let slot = self.reserve()?;
        self.make(slot).inspect_err(|_| {
            self.state().taken.remove(&slot);
        })?;
        Ok(self.network(slot))
    }

    fn make(&self, slot: Slot) -> Result<(), LinkError> {
        let path = self.path(slot);
        link::make(&path, slot, self.inner.subnets).inspect_err(|_| {
            if let Err(error) = link::remove(&path, slot, self.inner.subnets) {
                tracing::warn!(%error, "a half made network stays until the next start");
            }
        })
    }

    /// Opens services for the workspace of `slot`; what is open already stays so. Blocks some milliseconds.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn open_services(&self, slot: Slot, openings: Vec<Opening>) -> Result<(), LinkError> {
        if openings.is_empty() {
            return Ok(());
        }
        // Known first: what is half opened is closed, too, before another workspace gets the slot.
        self.state().taken.insert(slot, openings.clone());
        // Side by side: each is a process of its own.
        let inside = openings.iter().any(|opening| opening.kind == OpeningKind::Loopback).then(|| {
            let ruleset = rules::inner_table(self.inner.subnets.gateway(slot), &openings);
            let path = self.path(slot);
            std::thread::spawn(move || link::nft_inside(&path, ruleset))
        });
        let outside = link::nft(&rules::open(&self.inner.subnets, slot, &openings), "opening services for a workspace");
        if let Some(inside) = inside {
            inside.join().map_err(|_| LinkError::Broken)??;
        }
        outside
    }

    /// Takes a network back: closed, removed, its slot free. A namespace is never given to a second workspace.
    ///
    /// # Errors
    /// See [`LinkError`]; the slot stays taken then.
    pub fn release(&self, slot: Slot) -> Result<(), LinkError> {
        let openings = match self.state().taken.get(&slot) {
            Some(openings) => openings.clone(),
            None => return Ok(()),
        };
        if !openings.is_empty()
            && let Err(error) =
                link::nft(&rules::close(&self.inner.subnets, slot, &openings), "closing services of a workspace")
        {
            // Somebody flushed the table: what is not in it is closed already.
            tracing::warn!(
                error = berth_http::problem::chain(&error),
                "the packet filter did not have a workspace's openings"
            );
        }
        link::remove(&self.path(slot), slot, self.inner.subnets)?;
        self.state().taken.remove(&slot);
        Ok(())
    }

    /// Makes namespaces as they are used up, between starts, for as long as it is polled.
    pub(crate) async fn keep_ready(&self, mut quiet: Quiet) {
        loop {
            while quiet.then(|| self.is_short()).await {
                let pool = self.clone();
                let made = tokio::task::spawn_blocking(move || {
                    let _making = pool.inner.making.lock().unwrap_or_else(PoisonError::into_inner);
                    if !pool.is_short() {
                        return Ok(());
                    }
                    let slot = pool.reserve()?;
                    let made = pool.make(slot);
                    let mut state = pool.state();
                    state.taken.remove(&slot);
                    if made.is_ok() {
                        state.ready.push(slot);
                    }
                    made
                });
                match made.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(error = berth_http::problem::chain(&error), "no network can be made ahead");
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.inner.refill.notified().await;
        }
    }

    fn is_short(&self) -> bool {
        let state = self.state();
        !state.closed && state.ready.len() < self.inner.depth
    }

    /// Lines for the workspace's `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self, slot: Slot) -> String {
        let mut text = String::new();
        let gateway = self.inner.loopback_name_server.map(|_| self.inner.subnets.gateway(slot));
        for server in gateway.iter().chain(&self.inner.name_servers) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        for line in std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default().lines() {
            if line.starts_with("search ") || line.starts_with("options ") {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// Slots in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.state().taken.len()
    }

    /// Removes the ready namespaces and, when no workspace runs, the packet filter and what was switched on for them.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn close(&self) -> Result<(), LinkError> {
        self.state().closed = true;
        // One may be in the making although nobody polls `keep_ready` any more.
        let _making = self.inner.making.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = std::mem::take(&mut self.state().ready);
        for slot in ready {
            link::remove(&self.path(slot), slot, self.inner.subnets)?;
        }
        if self.in_use() > 0 {
            return Ok(());
        }
        // Another home's workspaces on this machine may still need it.
        let others = addresses().iter().any(|(name, _)| name.starts_with(INTERFACE_PREFIX));
        for uplink in self.inner.uplinks.iter().filter(|_| !others) {
            link::set(&host::forwarding(uplink), "0")?;
        }
        let _ = std::fs::remove_file(host::uplinks_file(&self.inner.root));
        let table = serde_json::json!({ "table": { "family": "inet", "name": self.inner.subnets.table() } });
        link::nft(
            &serde_json::json!({ "nftables": [{ "add": table }, { "delete": table }] }),
            "removing the packet filter",
        )
    }
}

/// Only an interface with the address we gave it is ours to remove.
fn subnets_own(subnets: &Subnets, interface: &str, slot: Slot) -> bool {
    let gateway = subnets.gateway(slot);
    addresses().into_iter().any(|(name, address)| name == interface && address == gateway)
        || !addresses().iter().any(|(name, _)| name == interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_every_network_is_taken_the_next_one_is_told_so_and_nothing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let taken = (0..Subnets::MOST).map(|number| (Slot(number), Vec::new())).collect();
        let inner = Inner {
            root: root.path().to_owned(),
            subnets: Subnets::default(),
            state: Mutex::new(State { taken, ..State::default() }),
            making: Mutex::default(),
            refill: tokio::sync::Notify::new(),
            name_servers: Vec::new(),
            loopback_name_server: None,
            uplinks: Vec::new(),
            depth: 1,
        };
        let pool = NetworkPool { inner: Arc::new(inner) };
        let told = pool.take().unwrap_err().to_string();
        assert_eq!(told, "this node has no free network for another workspace (16384 are in use)");
        assert_eq!(pool.in_use(), usize::from(Subnets::MOST));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        // One is given back, and is the next one's.
        pool.state().taken.remove(&Slot(7));
        assert_eq!(pool.reserve().unwrap(), Slot(7));
    }
}
