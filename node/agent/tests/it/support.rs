//! A node in a home of its own, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use berth_clock::SystemClock;
use berth_node::container::Limits as InstanceLimits;
use berth_node::image::base;
use berth_node::image::layout::{Layout, Limits};
use berth_node::instance::{Census, Node, StartRequest, Steps, census};
use berth_node::{Config, CredentialSource, NoCredentials};
use berth_supervisor_client::{Output, SupervisorClient};
use berth_supervisor_protocol::{Exec, ExitStatus};
use berth_testkit::Repository;
use berth_workspace_crd::{Checkout, GitIdentity};

/// One test at a time: they share the packet filter, the interfaces' names and the built base image.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Where cargo puts programs.
fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.ancestors()
        .find(|path| path.ends_with("debug") || path.ends_with("release"))
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// A program of the workspace, or the reason why the test cannot run.
fn program(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(format!("BERTH_TEST_{}", name.to_uppercase().replace('-', "_"))).map(PathBuf::from);
    let target = target();
    let release = target.with_file_name("release");
    [named, Some(target.join(name)), Some(release.join(name))].into_iter().flatten().find(|path| path.exists())
}

/// A home that one test has for itself.
pub struct TestHome {
    pub config: Config,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

impl TestHome {
    /// The home, with nothing on it but the base image; or none, with the reason printed.
    pub async fn lock(change: impl FnOnce(&mut Config)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let (Some(hull), Some(berth_init)) = (program("hull"), program("berth-init")) else {
            eprintln!("skipped: build hull and berth-init first (cargo build -p hull -p berth-init)");
            return None;
        };
        let alone = ONE.lock().await;
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("info").try_init();
        // Kept between runs for the base image's sake; everything else in it is removed.
        let home = target().with_file_name("node-test-home");
        let mut config = Config {
            home,
            name: Some("test-node".to_owned()),
            hull: Some(hull),
            berth_init: Some(berth_init),
            ready_networks: 1,
            blank_disks: 0,
            ..Config::default()
        };
        berth_testkit::base_image(&config.home, |shared| {
            let layout = Layout::join(shared.join("node/images"), Limits::default())?;
            layout.image(base::ensure(&layout, &|text| eprintln!("{text}"))?, &|_| {})?;
            Ok(())
        })
        .unwrap();
        let node = open(&config, Arc::new(NoCredentials)).await;
        for instance in node.instances() {
            let id = instance.record().request.instance_id;
            node.stop(&id, Duration::ZERO).await;
            node.forget(&id);
        }
        for (workspace, ..) in node.disks().list() {
            node.disks().delete(&workspace).unwrap();
        }
        node.prepare(Arc::new(|text| eprintln!("{text}"))).await.unwrap();
        node.close().unwrap();
        node.detach();
        drop(node);
        change(&mut config);
        Some(Self { config, _alone: alone })
    }

    /// Nothing is left on the machine.
    pub fn assert_clean(&self) {
        assert_eq!(census(&self.config.home), Census { mounts: 0, interfaces: 0, cgroups: 0, loops: 0 });
        let folder = berth_node::container::config::cgroup(&self.config.home);
        for mount in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let left = mount.path().join(folder.trim_start_matches('/'));
            assert!(!left.exists(), "{} is left", left.display());
        }
        assert!(!std::path::Path::new(&format!("/sys/fs/cgroup{folder}")).exists(), "{folder} is left");
    }
}

/// A node for one test.
pub struct TestNode {
    pub node: Node,
    home: TestHome,
}

impl TestNode {
    /// A node, or none with the reason printed.
    pub async fn open() -> Option<Self> {
        Self::with(|_| {}, Arc::new(NoCredentials)).await
    }

    pub async fn with(change: impl FnOnce(&mut Config), credentials: Arc<dyn CredentialSource>) -> Option<Self> {
        let home = TestHome::lock(change).await?;
        let node = open(&home.config, credentials).await;
        Some(Self { node, home })
    }

    /// Ends the test: instances and disks go, and nothing else may be left.
    pub async fn close(self) {
        for instance in self.node.instances() {
            let id = instance.record().request.instance_id;
            self.node.stop(&id, Duration::ZERO).await;
            self.node.forget(&id);
        }
        for (workspace, ..) in self.node.disks().list() {
            self.node.disks().delete(&workspace).unwrap();
        }
        self.node.close().unwrap();
        self.home.assert_clean();
    }
}

/// Kills the first process of an instance, as a user could not.
pub async fn kill_main_process(node: &Node, id: &str) {
    let folder = node.instance(id).unwrap().folder.clone();
    let info = berth_sandbox::monitor::MonitorHandle::info_in(&folder).unwrap().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(info.container_pid.unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn open(config: &Config, credentials: Arc<dyn CredentialSource>) -> Node {
    let config = config.clone();
    Node::open(config, SystemClock::shared(), credentials).unwrap()
}

/// A request for a workspace with this repository at `branch`.
pub fn request(number: u32, repository: &Repository, branch: &str) -> StartRequest {
    let url: url::Url = repository.url.parse().unwrap();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let commit = repository.git(&["rev-parse", branch]).ok().map(|text| text.trim().to_owned());
    let id = format!("00000000-0000-7000-8000-{number:012}");
    StartRequest {
        workspace_id: id.replace("-8000-", "-9000-"),
        instance_id: id,
        owner_id: "owner".to_owned(),
        attempt: 1,
        hostname: "hello".to_owned(),
        image: None,
        checkout: Checkout {
            repository: berth_workspace_crd::Repository {
                clone_url: repository.url.clone(),
                host: host.clone(),
                owner: "acme".to_owned(),
                name: "hello".to_owned(),
            },
            reference: commit.as_ref().map(|_| format!("refs/heads/{branch}")),
            branch: Some(branch.to_owned()),
            commit,
            path: "/workspace/hello".to_owned(),
        },
        git: GitIdentity { name: "Ada Lovelace".to_owned(), email: "ada@example.com".to_owned() },
        env: [("BERTH_WORKSPACE_NAME".to_owned(), "hello".to_owned())].into(),
        allow_private_hosts: vec![host],
        limits: InstanceLimits {
            cpu_millis: 1000,
            memory_bytes: 256 << 20,
            disk_bytes: 1 << 30,
            pids: 256,
            io_bytes_per_second: None,
            no_new_privileges: false,
        },
    }
}

pub fn steps() -> Steps {
    Steps::new(SystemClock::shared())
}

/// Runs a command inside and gives what it wrote; fails with its complaint.
pub async fn run(node: &Node, id: &str, argv: &[&str]) -> anyhow::Result<String> {
    let output = output(node, id, argv).await?;
    anyhow::ensure!(
        output.status == ExitStatus::Code(0),
        "{argv:?}: {:?}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

pub async fn output(node: &Node, id: &str, argv: &[&str]) -> anyhow::Result<Output> {
    let client = SupervisorClient::new(node.connect(id).await.context("connect")?);
    let exec = Exec { argv: argv.iter().map(|a| (*a).to_owned()).collect(), ..Exec::default() };
    Ok(client.run(exec, &[], 1 << 20).await?)
}

/// The base image under another name, with another user: by the import of an OCI layout.
pub async fn derive(node: &Node, name: &str, user: &str) -> berth_node::image::Digest {
    use berth_node::image::Digest;
    let store = node.config().home.join("node/images");
    let read = |digest: &Digest| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(store.join("blobs/sha256").join(digest.hex())).unwrap()).unwrap()
    };
    let base = node.prepare(Arc::new(|_| {})).await.unwrap();
    let mut manifest = read(&base.digest);
    let digest_of = |value: &serde_json::Value| -> Digest { value["digest"].as_str().unwrap().parse().unwrap() };
    let mut config = read(&digest_of(&manifest["config"]));
    config["config"]["User"] = user.into();
    let config = config.to_string();
    manifest["config"]["digest"] = Digest::of(config.as_bytes()).to_string().into();
    manifest["config"]["size"] = config.len().into();
    let layer = digest_of(&manifest["layers"][0]);
    let manifest = manifest.to_string();
    let layout = tempfile::tempdir().unwrap();
    let blobs = layout.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::os::unix::fs::symlink("x", blobs.join("ignored")).unwrap();
    for content in [&config, &manifest] {
        std::fs::write(blobs.join(Digest::of(content.as_bytes()).hex()), content).unwrap();
    }
    std::fs::hard_link(store.join("blobs/sha256").join(layer.hex()), blobs.join(layer.hex()))
        .or_else(|_| std::fs::copy(store.join("blobs/sha256").join(layer.hex()), blobs.join(layer.hex())).map(drop))
        .unwrap();
    let digest = Digest::of(manifest.as_bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len() }] });
    std::fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
    node.images().import(layout.path().to_owned(), name.parse().unwrap()).await.unwrap()
}
