//! The services as processes on this machine, with the settings of docker-compose.yml (`deploy/compose/*.toml`): only addresses and folders differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_testkit::TestDatabase;

use super::{missing_programs, ok, program, repository, wait_for};

/// The services, in an order in which they can be started.
pub(crate) const SERVICES: [&str; 7] = ["ws-manager", "scm", "api", "billing", "automations", "node", "gateway"];

/// Addresses of workspaces; another range than those that homes choose by themselves.
const SUBNETS: &str = "10.158.0.0/16";

/// Ports of one service on loopback.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    public: u16,
    internal: u16,
}

/// The installation; its processes are gone when it is dropped.
pub(crate) struct Installation {
    folder: tempfile::TempDir,
    home: PathBuf,
    _database: TestDatabase,
    ports: BTreeMap<&'static str, Ports>,
    kubernetes: u16,
    running: BTreeMap<&'static str, Child>,
    variables: Vec<(&'static str, String)>,
}

impl Installation {
    /// Starts every service; git hosts in `allowed` may have private addresses. None, with the reason printed, where it cannot run.
    pub(crate) async fn start(allowed: &str) -> Option<Self> {
        if let Some(reason) = missing_programs() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // The same each time, so that the node sweeps away what a test that failed has left; and for the base image's sake.
        let home = program("berth").unwrap().parent().unwrap().with_file_name("split-test-home");
        end_workspaces(&home);
        for rest in ["run", "node/disks"] {
            let _ = std::fs::remove_dir_all(home.join(rest));
        }
        berth_testkit::base_image(&home, |shared| {
            let mut build = Command::new(program("berth").unwrap());
            ok(build.args(["image", "build-base"]).env("BERTH_HOME", shared));
            Ok(())
        })
        .unwrap();
        ok(Command::new(repository().join("deploy/compose/init"))
            .arg(folder.path().join("secrets"))
            .arg("IP:127.0.0.1"));
        let ports = free_ports(2 * SERVICES.len() + 1);
        let kubernetes = ports[2 * SERVICES.len()];
        let pairs = ports.chunks_exact(2).map(|pair| Ports { public: pair[0], internal: pair[1] });
        let mut this = Self {
            folder,
            home,
            _database: berth_testkit::database().await,
            ports: SERVICES.into_iter().zip(pairs).collect(),
            kubernetes,
            running: BTreeMap::new(),
            variables: Vec::new(),
        };
        let url = this.url();
        // As docker-compose.yml sets them.
        this.variables = vec![
            ("BERTH_SERVICE__PUBLIC_URL", url.clone()),
            ("BERTH_SERVICE__ALLOWED_ORIGINS", format!("[\"{url}\"]")),
            ("BERTH_SERVICE__ALLOW_PRIVATE_HOSTS", allowed.to_owned()),
        ];
        for service in SERVICES {
            this.configure(service);
            this.run(service);
        }
        for service in SERVICES {
            this.wait_until_it_answers(service);
        }
        Some(this)
    }

    /// The public address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports["gateway"].public)
    }

    /// Internal address of a service.
    pub(crate) fn internal(&self, service: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[service].internal)
    }

    /// Public address of a service behind the gateway.
    pub(crate) fn public(&self, service: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[service].public)
    }

    /// Address of the Kubernetes API.
    pub(crate) fn kubernetes(&self) -> String {
        format!("https://127.0.0.1:{}", self.kubernetes)
    }

    /// A secret's file.
    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.folder.path().join("secrets").join(name)
    }

    /// What a service wrote.
    pub(crate) fn log(&self, service: &str) -> String {
        std::fs::read_to_string(self.log_file(service)).unwrap()
    }

    fn log_file(&self, service: &str) -> PathBuf {
        self.folder.path().join(format!("{service}.log"))
    }

    /// Writes the settings that docker-compose.yml gives to this service, with this machine's addresses and folders in them.
    fn configure(&self, service: &str) {
        let mut text = std::fs::read_to_string(repository().join(format!("deploy/compose/{service}.toml"))).unwrap();
        let own = self.ports[service];
        for (name, ports) in &self.ports {
            text = text.replace(&format!("//{name}:7080"), &format!("//127.0.0.1:{}", ports.public));
            text = text.replace(&format!("//{name}:7070"), &format!("//127.0.0.1:{}", ports.public));
            text = text.replace(&format!("//{name}:7081"), &format!("//127.0.0.1:{}", ports.internal));
        }
        for (from, to) in [
            ("0.0.0.0:7070".to_owned(), format!("127.0.0.1:{}", own.public)),
            ("0.0.0.0:7080".to_owned(), format!("127.0.0.1:{}", own.public)),
            ("0.0.0.0:7081".to_owned(), format!("127.0.0.1:{}", own.internal)),
            ("0.0.0.0:7443".to_owned(), format!("127.0.0.1:{}", self.kubernetes)),
            ("//ws-manager:7443".to_owned(), format!("//127.0.0.1:{}", self.kubernetes)),
            ("postgres://berth@postgres/berth".to_owned(), self._database.url.clone()),
            ("/run/secrets".to_owned(), self.folder.path().join("secrets").display().to_string()),
            ("/var/lib/berth".to_owned(), self.home.display().to_string()),
        ] {
            text = text.replace(&from, &to);
        }
        if service == "node" {
            let programs = format!(
                "[service.agent]\nhull = {:?}\nberth_init = {:?}\nsubnets = {SUBNETS:?}\nready_networks = 1\nblank_disks = 0",
                program("hull").unwrap(),
                program("berth-init").unwrap()
            );
            text = text.replace("[service.agent]", &programs);
        }
        std::fs::write(self.folder.path().join(format!("{service}.toml")), text).unwrap();
    }

    /// Starts a service.
    pub(crate) fn run(&mut self, service: &'static str) {
        let log = File::options().create(true).append(true).open(self.log_file(service)).unwrap();
        let mut command = Command::new(program(&format!("berth-{service}")).unwrap());
        command.arg(self.folder.path().join(format!("{service}.toml"))).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        for (name, value) in &self.variables {
            let wanted = match service {
                "api" => *name == "BERTH_SERVICE__PUBLIC_URL",
                "gateway" => *name == "BERTH_SERVICE__ALLOWED_ORIGINS",
                "scm" => *name == "BERTH_SERVICE__ALLOW_PRIVATE_HOSTS",
                _ => false,
            };
            if wanted {
                command.env(name, value);
            }
        }
        self.running.insert(service, command.spawn().unwrap());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, service: &str) {
        let mut child = self.running.remove(service).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Its internal listener accepts: all that is built before has succeeded.
    pub(crate) fn wait_until_it_answers(&mut self, service: &'static str) {
        let port = self.ports[service].internal;
        let (log, child) = (self.log_file(service), self.running.get_mut(service).unwrap());
        wait_for(&format!("{service} to answer"), 60, || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{service} ended with {status}: {}", std::fs::read_to_string(&log).unwrap());
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }

    /// SIGTERM to every service; each ends well.
    pub(crate) fn stop(&mut self) {
        for service in SERVICES.into_iter().rev() {
            let mut child = self.running.remove(service).unwrap();
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let status = wait_for(&format!("{service} to end"), 30, || child.try_wait().unwrap());
            assert!(status.success(), "{service} ended with {status}: {}", self.log(service));
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for service in SERVICES {
                let log = std::fs::read_to_string(self.log_file(service)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("the end of {service}'s log:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
            }
            end_workspaces(&self.home);
        }
    }
}

/// Different ports that nobody listens on.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// After a test that failed: ends what still runs in workspaces, and unmounts what lies below the home.
fn end_workspaces(home: &Path) {
    for instance in std::fs::read_dir(home.join("run/instances")).into_iter().flatten().flatten() {
        let monitor = std::fs::read(instance.path().join("monitor.json")).unwrap_or_default();
        let info: serde_json::Value = serde_json::from_slice(&monitor).unwrap_or_default();
        // With the first process of its namespace go all others.
        let pid =
            info["container_pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|path| Path::new(path).starts_with(home));
    for path in below.collect::<Vec<_>>().into_iter().rev() {
        let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    }
}
