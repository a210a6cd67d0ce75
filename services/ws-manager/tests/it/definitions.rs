//! The generated files are what the code makes, and the rights in them are enough.

use std::path::Path;

use berth_api_types::public::Phase;
use berth_kube_embedded::{Builder, Rule, Tokens, User};
use berth_workspace_crd::Workspace;
use berth_ws_manager::manifests;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Api;
use kube::api::{Patch, PatchParams};

use crate::gate::Gate;
use crate::node::FakeNode;
use crate::world::{Manager, World, config, start};

/// `BERTH_UPDATE=1` writes them instead.
#[test]
fn the_committed_files_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for manifest in manifests::manifests().unwrap() {
        let path = root.join(&manifest.path);
        if std::env::var_os("BERTH_UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &manifest.text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == manifest.text, "{} is not what the code makes: run `make generate`", manifest.path);
    }
}

fn rules(namespace: &[&str], rules: Option<Vec<PolicyRule>>) -> Vec<Rule> {
    let namespaces: Vec<String> = namespace.iter().map(|name| (*name).to_owned()).collect();
    rules
        .unwrap()
        .into_iter()
        .map(|rule| Rule {
            verbs: rule.verbs,
            groups: rule.api_groups.unwrap(),
            resources: rule.resources.unwrap(),
            namespaces: namespaces.clone(),
        })
        .collect()
}

#[tokio::test]
async fn the_rights_are_enough_for_a_life() {
    let mut rights = rules(&[], manifests::cluster_role().rules);
    rights.extend(rules(&[], manifests::install_role().rules));
    rights.extend(rules(&["berth"], manifests::role().rules));
    let tokens = Tokens::new().token("ws-manager", User::with_rules("ws-manager", rights));
    // Nothing is there yet: namespace and definitions are ws-manager's to make.
    let server = Builder::new().authenticator(tokens).start().await.unwrap();
    let gate = Gate::with_token(server.authenticated_router(), "ws-manager");
    let manager = Manager::start(gate.client(), config());
    let mut watch = manager.watch().await;
    let (_node, task) = FakeNode::start(kube::Client::new(server.router(), "berth"), "one").await;
    let one = start();
    manager.begin(&one).await;
    watch.phase(one.instance_id, Phase::Running).await;
    manager.end(one.instance_id, "enough").await;
    watch.phase(one.instance_id, Phase::Stopped).await;
    manager.api.delete(&format!("/internal/instances/{}", one.instance_id)).await.unwrap();
    watch.gone(one.instance_id).await;
    manager.api.delete(&format!("/internal/disks/{}", one.workspace_id)).await.unwrap();
    manager.stop().await;
    task.abort();
}

#[tokio::test]
async fn nothing_of_a_live_instance_can_be_changed_but_its_timeouts() {
    let world = World::new().await;
    let manager = Manager::start(world.gate().client(), config());
    let one = start();
    manager.begin(&one).await;
    let workspaces = Api::<Workspace>::namespaced(world.kube.clone(), "berth");
    let patch = async |spec: serde_json::Value| {
        let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
        workspaces.patch(&one.instance_id.to_string(), &PatchParams::default(), &patch).await
    };
    for change in [
        serde_json::json!({ "class": "large" }),
        serde_json::json!({ "ownerId": "somebody" }),
        serde_json::json!({ "image": "debian:12" }),
        serde_json::json!({ "env": { "A": "b" } }),
        serde_json::json!({ "checkout": { "path": "/etc" } }),
        serde_json::json!({ "allowPrivateHosts": ["127.0.0.1:22"] }),
    ] {
        let refused = patch(change.clone()).await.unwrap_err();
        let kube::Error::Api(status) = &refused else { panic!("{change}: {refused}") };
        assert_eq!(status.code, 422, "{change}: {status:?}");
        assert!(status.message.contains("cannot be changed while the instance lives"), "{change}: {status:?}");
    }
    let changed = patch(serde_json::json!({ "timeouts": { "inactivitySeconds": 60 } })).await.unwrap();
    assert_eq!(changed.spec.timeouts.inactivity_seconds, Some(60));
    manager.stop().await;
}
