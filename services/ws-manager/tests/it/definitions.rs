//! The generated files are what the code makes, and the rights in them are enough.

use std::path::Path;

use berth_api_types::public::Phase;
use berth_kube_embedded::{Builder, Rule, Tokens, User};
use berth_workspace_crd::Workspace;
use berth_ws_manager::manifests;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};

use crate::gate::Gate;
use crate::node::FakeNode;
use crate::world::{Manager, World, config, eventually, start};

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
    let events = Api::<Event>::namespaced(kube::Client::new(server.router(), "berth"), "berth");
    eventually("it is told", || async { events.list(&ListParams::default()).await.unwrap().items.len() >= 3 }).await;
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
        serde_json::json!({ "ownerId": "01994c3e-0000-7000-9000-000000000009" }),
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

/// As somebody would write it, without a label of ours.
fn by_hand(instance: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "berth.dev/v1",
        "kind": "Workspace",
        "metadata": { "name": instance },
        "spec": {
            "workspaceId": "01994c3e-0000-7000-9000-000000000001",
            "workspaceName": "by-hand",
            "ownerId": "01994c3e-0000-7000-9000-000000000002",
            "organizationId": "01994c3e-0000-7000-9000-000000000003",
            "class": "small",
            "checkout": {
                "repository": { "cloneUrl": "https://git.example:8443/a/b%20c.git", "host": "git.example:8443", "owner": "a", "name": "b c" },
                "ref": "refs/heads/feature/ä",
                "branch": "feature/ä",
                "commit": "0123456789abcdef0123456789abcdef01234567",
                "path": "/workspace/b c",
            },
            "env": { "A": "b" },
            "allowPrivateHosts": ["127.0.0.1:7171", "[::1]:80"],
        },
    })
}

#[tokio::test]
async fn a_workspace_made_by_hand_runs() {
    let world = World::new().await;
    let manager = Manager::start(world.gate().client(), config());
    let mut watch = manager.watch().await;
    let instance = start().instance_id;
    let workspace = serde_json::from_value(by_hand(&instance.to_string())).unwrap();
    let workspaces = Api::<Workspace>::namespaced(world.kube.clone(), "berth");
    workspaces.create(&PostParams::default(), &workspace).await.unwrap();
    watch.phase(instance, Phase::Running).await;
    workspaces.delete(&instance.to_string(), &DeleteParams::default()).await.unwrap();
    watch.gone(instance).await;
    manager.stop().await;
}

/// The API refuses them all: nothing of them is stored, nobody has to be careful with them.
#[tokio::test]
async fn what_no_workspace_can_be_is_refused() {
    let world = World::new().await;
    let manager = Manager::start(world.gate().client(), config());
    manager.watch().await;
    let workspaces = Api::<Workspace>::namespaced(world.kube.clone(), "berth");
    let instance = start().instance_id.to_string();
    for (field, value) in [
        ("/spec/workspaceId", "x"),
        ("/spec/workspaceId", "../../../../tmp/x"),
        ("/spec/workspaceId", "01994C3E-0000-7000-9000-000000000001"),
        ("/spec/ownerId", ""),
        ("/spec/ownerId", "01994c3e-0000-7000-9000-000000000002\n"),
        ("/spec/organizationId", "*"),
        ("/spec/workspaceName", ""),
        ("/spec/workspaceName", "../../etc"),
        ("/spec/workspaceName", "Upper"),
        ("/spec/workspaceName", "a\nb"),
        ("/spec/workspaceName", &"a".repeat(64)),
        ("/spec/class", ""),
        ("/spec/class", "../small"),
        ("/spec/image", "--bad image"),
        ("/spec/image", "a\tb"),
        ("/spec/image", &"a".repeat(513)),
        ("/spec/git/name", "a\nb"),
        ("/spec/checkout/path", "relative"),
        ("/spec/checkout/path", "/"),
        ("/spec/checkout/path", "/workspace/a\u{0}"),
        ("/spec/checkout/ref", "--upload-pack=x"),
        ("/spec/checkout/ref", "refs/heads/a b"),
        ("/spec/checkout/branch", "-x"),
        ("/spec/checkout/branch", "a:b"),
        ("/spec/checkout/commit", "zz"),
        ("/spec/checkout/commit", "0123456"),
        ("/spec/checkout/repository/cloneUrl", "file:///etc"),
        ("/spec/checkout/repository/cloneUrl", "ext::sh -c id"),
        ("/spec/checkout/repository/cloneUrl", "ssh://git@git.example/a/b"),
        ("/spec/checkout/repository/cloneUrl", "https://user:secret@git.example/a/b"),
        ("/spec/checkout/repository/cloneUrl", "https://git.example/a b"),
        ("/spec/checkout/repository/host", "a/b"),
        ("/spec/checkout/repository/owner", "a\u{7}"),
        ("/spec/checkout/repository/name", ""),
        ("/spec/allowPrivateHosts/0", "junk"),
        ("/spec/allowPrivateHosts/0", "http://127.0.0.1:80"),
        ("/spec/type", "Other"),
    ] {
        let mut hostile = by_hand(&instance);
        hostile["spec"]["image"] = "debian:12".into();
        hostile["spec"]["git"] = serde_json::json!({ "name": "", "email": "" });
        hostile["spec"]["type"] = "Regular".into();
        *hostile.pointer_mut(field).unwrap() = value.into();
        let request = http::Request::post("/apis/berth.dev/v1/namespaces/berth/workspaces")
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&hostile).unwrap())
            .unwrap();
        let refused = world.kube.request::<serde_json::Value>(request).await.unwrap_err();
        let kube::Error::Api(status) = &refused else { panic!("{field} {value:?}: {refused}") };
        assert_eq!(status.code, 422, "{field} {value:?}: {status:?}");
        let named = field.rsplit('/').find(|part| *part != "0").unwrap();
        assert!(status.message.contains(named), "{field} {value:?}: {status:?}");
    }
    assert!(workspaces.list(&ListParams::default()).await.unwrap().items.is_empty());
    manager.stop().await;
}
