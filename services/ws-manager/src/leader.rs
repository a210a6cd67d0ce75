//! Leader election by a Lease of `coordination.k8s.io/v1`: one controller at a time, in every shape.
//!
//! Clocks of different machines are never compared: a lease has expired once this process has seen it unchanged for as long as it lasts.

use std::time::Duration;

use berth_clock::SharedClock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// Name of the lease.
pub(crate) const LEASE: &str = "berth-ws-manager";
const LAST: Duration = Duration::from_secs(15);
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const RENEW_EACH: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);

/// What to do about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// There is none: make it.
    Create,
    /// It is free, or ours from before: take it.
    Take,
    /// Look again after this time.
    Wait(Duration),
}

/// Decides for a replica that does not lead. `unchanged` is how long this process has seen the lease as it is.
pub(crate) fn decide(lease: Option<&LeaseSpec>, me: &str, unchanged: Duration) -> Decision {
    let Some(lease) = lease else { return Decision::Create };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == me {
        return Decision::Take;
    }
    let lasts =
        lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LAST, Duration::from_secs);
    if unchanged >= lasts { Decision::Take } else { Decision::Wait((lasts - unchanged).min(RETRY)) }
}

/// Takes part in the election.
#[derive(Debug)]
pub(crate) struct Elector {
    leases: Api<Lease>,
    me: String,
    clock: SharedClock,
}

impl Elector {
    pub(crate) fn new(client: Client, namespace: &str, me: String, clock: SharedClock) -> Self {
        Self { leases: Api::namespaced(client, namespace), me, clock }
    }

    /// Resolves when this process leads.
    pub(crate) async fn acquire(&self) -> Lease {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.step(&mut seen).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the lease cannot be read or written; trying again"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn step(&self, seen: &mut Option<(Option<String>, Instant)>) -> Result<Option<Lease>, kube::Error> {
        let lease = self.leases.get_opt(LEASE).await?;
        let version = lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => {
                let now = Instant::now();
                *seen = Some((version, now));
                now
            }
        };
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        match decide(spec.as_ref(), &self.me, since.elapsed()) {
            Decision::Create => {
                let mut lease = Lease { spec: Some(self.claim(&LeaseSpec::default())), ..Lease::default() };
                lease.metadata.name = Some(LEASE.to_owned());
                won(self.leases.create(&PostParams::default(), &lease).await)
            }
            Decision::Take => {
                let mut lease = lease.unwrap_or_default();
                lease.spec = Some(self.claim(&lease.spec.unwrap_or_default()));
                won(self.leases.replace(LEASE, &PostParams::default(), &lease).await)
            }
            Decision::Wait(time) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
        }
    }

    fn claim(&self, old: &LeaseSpec) -> LeaseSpec {
        let now = self.now();
        let ours = old.holder_identity.as_deref() == Some(&self.me);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LAST.as_secs()).ok(),
            acquire_time: if ours { old.acquire_time.clone().or(Some(now.clone())) } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0).saturating_add(i32::from(!ours))),
            ..LeaseSpec::default()
        }
    }

    fn now(&self) -> MicroTime {
        MicroTime(jiff::Timestamp::from_microsecond(self.clock.now().timestamp_micros()).unwrap_or_default())
    }

    /// Renews the lease. Resolves when it is lost: somebody else has it, or it could not be renewed in time.
    pub(crate) async fn hold(&self, mut lease: Lease) {
        let mut renewed = Instant::now();
        let mut pause = RENEW_EACH;
        loop {
            tokio::time::sleep(pause).await;
            lease.spec = Some(self.claim(&lease.spec.unwrap_or_default()));
            let params = PostParams::default();
            let attempt = tokio::time::timeout(RENEW_WITHIN, self.leases.replace(LEASE, &params, &lease)).await;
            let error = match attempt {
                Ok(Ok(new)) => {
                    (lease, renewed, pause) = (new, Instant::now(), RENEW_EACH);
                    continue;
                }
                // The version was outdated: an answer to us was lost, or somebody else won. The lease says which.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => match self.leases.get_opt(LEASE).await {
                    Ok(Some(now)) if now.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(&self.me) => {
                        lease = now;
                        pause = Duration::ZERO;
                        continue;
                    }
                    Ok(_) => return,
                    Err(error) => error.to_string(),
                },
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!(%error, "the lease could not be renewed; trying again");
            if renewed.elapsed() >= RENEW_WITHIN {
                return;
            }
            pause = RETRY;
        }
    }

    /// Releases the lease, so that another replica need not wait until it expires.
    pub(crate) async fn release(&self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(LEASE).await else { return };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) else {
            return;
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(self.now());
        if let Err(error) = self.leases.replace(LEASE, &PostParams::default(), &lease).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the lease could not be given back; it runs out by itself"
            );
        }
    }
}

/// A lost race is no error: look again.
fn won(result: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_take_a_lease() {
        let lease = |holder: &str, seconds| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        };
        let table = [
            (None, 0, Decision::Create),
            (Some(lease("", 1)), 0, Decision::Take),
            (Some(lease("me", 15)), 0, Decision::Take),
            (Some(lease("other", 15)), 0, Decision::Wait(RETRY)),
            (Some(lease("other", 15)), 14, Decision::Wait(Duration::from_secs(1))),
            (Some(lease("other", 15)), 15, Decision::Take),
            (Some(lease("other", -3)), 14, Decision::Wait(Duration::from_secs(1))),
        ];
        for (lease, unchanged, expected) in table {
            assert_eq!(decide(lease.as_ref(), "me", Duration::from_secs(unchanged)), expected, "{lease:?} {unchanged}");
        }
    }
}
