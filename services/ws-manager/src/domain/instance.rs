//! The custom resource as the other services see it.

use berth_api_types::internal::InstanceStatus;
use berth_api_types::public;
use berth_ids::ParseIdError;
use berth_workspace_crd::{ConditionType, Phase, Workspace};

use crate::domain::time;

/// A `Workspace` object that no service of ours could have made.
#[derive(Debug, thiserror::Error)]
pub enum Foreign {
    /// An id in it is no UUID.
    #[error("the Workspace object {name:?} was not made by Berth")]
    Id {
        /// Of the object.
        name: String,
        /// What is wrong.
        #[source]
        source: ParseIdError,
    },
    /// Every stored object has a resource version that is a number.
    #[error("the Workspace object {0:?} has no numeric resourceVersion: the API server is not one that Berth can use")]
    Version(String),
}

/// The status as `GET /internal/instances` gives it.
pub fn of(workspace: &Workspace) -> Result<InstanceStatus, Foreign> {
    let name = workspace.metadata.name.clone().unwrap_or_default();
    let id = |source| Foreign::Id { name: name.clone(), source };
    let version = version(workspace).ok_or_else(|| Foreign::Version(name.clone()))?;
    let spec = &workspace.spec;
    let status = workspace.status.clone().unwrap_or_default();
    let moment = |text: &Option<String>| text.as_deref().and_then(time::parse);
    let timeout_warning = status
        .condition(ConditionType::TimeoutWarning)
        .filter(|_| status.is(ConditionType::TimeoutWarning))
        .map(|condition| condition.message.clone());
    Ok(InstanceStatus {
        instance_id: name.parse().map_err(id)?,
        workspace_id: spec.workspace_id.parse().map_err(id)?,
        owner_id: spec.owner_id.parse().map_err(id)?,
        version,
        phase: phase(status.phase),
        failed: status.is(ConditionType::Failed),
        steps: status.steps.iter().filter_map(step).collect(),
        started_at: moment(&status.started_at),
        stopped_at: moment(&status.stopped_at),
        last_activity: moment(&status.last_activity),
        reason: status.reason,
        node: status.node,
        image_digest: status.image_digest,
        resources: status.resources.map(resources),
        timeout_warning,
    })
}

/// The resource version as a number: one counter for all objects, ordered since Kubernetes 1.35.
pub fn version<K: kube::Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

const fn phase(phase: Phase) -> public::Phase {
    match phase {
        Phase::Pending => public::Phase::Pending,
        Phase::Imagebuild => public::Phase::Imagebuild,
        Phase::Creating => public::Phase::Creating,
        Phase::Initializing => public::Phase::Initializing,
        Phase::Running => public::Phase::Running,
        Phase::Stopping => public::Phase::Stopping,
        Phase::Stopped => public::Phase::Stopped,
    }
}

fn resources(given: berth_workspace_crd::Resources) -> public::Resources {
    public::Resources {
        cpu_millis: given.cpu_millis,
        memory_bytes: given.memory_bytes,
        disk_bytes: given.disk_bytes,
        pids: given.pids,
    }
}

fn runtime_phase(phase: &berth_workspace_crd::RuntimePhase) -> public::RuntimePhase {
    public::RuntimePhase { name: phase.name.clone(), ended_ns: phase.ended_nanos }
}

fn step(step: &berth_workspace_crd::Step) -> Option<public::Step> {
    Some(public::Step {
        name: step.name.clone(),
        started_at: time::parse(&step.started_at)?,
        duration_us: step.duration_micros,
        detail: step.detail.clone(),
        phases: step.phases.iter().map(runtime_phase).collect(),
    })
}
