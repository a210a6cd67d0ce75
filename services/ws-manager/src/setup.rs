//! What must be in the cluster before anything else: the namespace, the definitions of our resources, the classes.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_workspace_crd::{LABEL_MANAGED_BY, MANAGED_BY, WorkspaceClass};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};

use crate::cluster::{Cluster, MANAGER};
use crate::config::Config;

/// A step of the preparation that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The namespace.
    #[error("namespace {0} could not be made")]
    Namespace(String, #[source] kube::Error),
    /// A definition.
    #[error(
        "the custom resource definition {0} could not be applied: apply deploy/crds, or give ws-manager the right to"
    )]
    Definition(String, #[source] kube::Error),
    /// A definition that the server does not serve.
    #[error("the custom resource definition {0} was applied and is not served")]
    NotEstablished(String, #[source] kube::runtime::wait::Error),
    /// A class.
    #[error("workspace class {0} could not be applied")]
    Class(String, #[source] kube::Error),
    /// Classes of an earlier configuration.
    #[error("workspace classes that are no longer configured could not be removed")]
    OldClasses(#[source] kube::Error),
}

/// Tries until all is there.
pub(crate) async fn ensure(client: &Client, config: &Config) {
    let mut pause = Duration::from_millis(50);
    while let Err(error) = try_ensure(client, config).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the cluster could not be prepared; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Puts back each configured class that somebody deletes or edits, for ever. For the replica that leads: another one may have an older configuration.
pub(crate) async fn keep_classes(cluster: &Cluster, config: &Config) {
    let mut pause = Duration::from_millis(50);
    cluster.synced().await;
    loop {
        let mut configured = config.classes.iter();
        if let Some(other) =
            configured.find(|class| cluster.classes.get(&class.name).is_none_or(|found| found.spec != class.spec()))
        {
            tracing::warn!(class = other.name, "a configured class was deleted or edited; it is put back");
            if let Err(error) = classes(&cluster.client, config, &PatchParams::apply(MANAGER).force()).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "it could not be put back; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
                continue;
            }
        }
        cluster.classes_changed.notified().await;
    }
}

async fn try_ensure(client: &Client, config: &Config) -> Result<(), SetupError> {
    let apply = PatchParams::apply(MANAGER).force();
    if config.install_definitions {
        namespace(client, &config.namespace).await?;
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        for definition in berth_workspace_crd::definitions() {
            let name = definition.name_any();
            definitions
                .patch(&name, &apply, &Patch::Apply(&definition))
                .await
                .map_err(|error| SetupError::Definition(name.clone(), error))?;
            await_condition(definitions.clone(), &name, is_crd_established())
                .await
                .map_err(|error| SetupError::NotEstablished(name, error))?;
        }
    }
    classes(client, config, &apply).await
}

async fn namespace(client: &Client, name: &str) -> Result<(), SetupError> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let failed = |error| SetupError::Namespace(name.to_owned(), error);
    if namespaces.get_opt(name).await.map_err(failed)?.is_some() {
        return Ok(());
    }
    let namespace = Namespace {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Namespace::default()
    };
    match namespaces.create(&Default::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

async fn classes(client: &Client, config: &Config, apply: &PatchParams) -> Result<(), SetupError> {
    let classes = Api::<WorkspaceClass>::all(client.clone());
    let mut configured = BTreeSet::new();
    for class in &config.classes {
        let mut object = WorkspaceClass::new(&class.name, class.spec());
        object.labels_mut().insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
        let failed = |error| SetupError::Class(class.name.clone(), error);
        let applied = classes.patch(&class.name, apply, &Patch::Apply(&object)).await.map_err(failed)?;
        // What the configuration leaves out, somebody else may have set.
        if applied.spec != object.spec {
            object.metadata.resource_version = applied.resource_version();
            classes.replace(&class.name, &PostParams::default(), &object).await.map_err(failed)?;
        }
        configured.insert(class.name.as_str());
    }
    // Those without our label were made by an administrator and stay.
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
    for class in classes.list(&ours).await.map_err(SetupError::OldClasses)? {
        let name = class.name_any();
        if !configured.contains(name.as_str()) {
            classes.delete(&name, &DeleteParams::default()).await.map_err(SetupError::OldClasses)?;
        }
    }
    Ok(())
}
