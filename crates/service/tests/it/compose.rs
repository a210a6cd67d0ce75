//! `docker-compose.yml`, brought up with the distribution's Docker: a daemon of the test's own, images made as `make images` makes them.

use std::fs::File;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use berth_testkit::GitServer;

use crate::support::{SERVICES, User, missing_programs, ok, program, repository, wait_for};

/// Docker's cgroups: below a folder of our own, so that nothing else on the machine is touched.
const CGROUP: &str = "/berth-compose-test";

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_opens_in_containers() {
    let missing = ["dockerd", "docker", "docker-compose", "mmdebstrap"].into_iter().find(|name| !installed(name));
    if let Some(reason) = missing_programs().or_else(|| missing.map(|name| format!("{name} is not installed"))) {
        eprintln!("skipped: {reason}");
        return;
    }
    let docker = match Docker::start() {
        Ok(docker) => docker,
        Err(reason) => {
            eprintln!("skipped: dockerd does not start here: {reason}");
            return;
        }
    };
    docker.build_images();
    let project = Project::new(&docker);
    let git = GitServer::start_at(project.host_address()).await.unwrap();
    let app = git.repository("team", "app", &[("README.md", "hello\n")]).unwrap();
    project.up(&git.address().to_string());

    let user = User::of(&project.url());
    let log = project.ok(&["logs", "--no-color", "api"]);
    let link = log.split("first administrator: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let cookie = user.set_up(link.unwrap_or_else(|| panic!("no link in {log}")));
    user.login(&user.token(&cookie));
    let shown = user.json(&["up", &app.url, "--name", "app", "--no-shell"]);
    assert_eq!(shown["phase"], "Running", "{shown}");
    assert_eq!(user.berth(&["exec", "app", "--", "cat", "README.md"]), "hello");
    user.berth(&["exec", "app", "--", "sh", "-c", "echo kept > /workspace/kept"]);

    services_have_no_privileges(&project);
    // Docker brings a service that was killed back; the workspace does not notice.
    for service in SERVICES.into_iter().filter(|service| *service != "node") {
        project.kill(service);
        wait_for(&format!("exec after the end of {service}"), 120, || {
            let output = user.run(&["exec", "app", "--", "cat", "README.md"]);
            (output.status.success() && output.stdout == b"hello\n").then_some(())
        });
    }
    // The node's container is the workspaces' too: they stop, and start again with what they had.
    project.kill("node");
    wait_for("the workspace to be stopped", 120, || (user.json(&["show", "app"])["phase"] == "Stopped").then_some(()));
    user.berth(&["start", "app"]);
    assert_eq!(user.berth(&["exec", "app", "--", "cat", "/workspace/kept"]), "kept");
    user.berth(&["delete", "app"]);
    project.ok(&["down", "--volumes"]);
}

/// What docker-compose.yml promises of them.
fn services_have_no_privileges(project: &Project<'_>) {
    for service in SERVICES.into_iter().filter(|service| *service != "node") {
        let status = project.ok(&["exec", "-T", service, "cat", "/proc/1/status"]);
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
        assert_eq!(field("Uid:").as_deref(), Some("10001\t10001\t10001\t10001"), "{service}");
        assert_eq!(field("CapBnd:").as_deref(), Some("0000000000000000"), "{service}");
        assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"), "{service}");
    }
    let postgres = project.ok(&["exec", "-T", "postgres", "cat", "/proc/1/status"]);
    assert!(postgres.contains("CapEff:\t0000000000000000"), "{postgres}");
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A dockerd with folders, a socket and cgroups of its own; it leaves the host's packet filter alone.
struct Docker {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    fn start() -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("berth-docker-").tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("none.json"), "{}").unwrap();
        let log = File::create(path("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.arg("--host").arg(format!("unix://{}", path("docker.sock").display()));
        for (option, name) in
            [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid"), ("--config-file", "none.json")]
        {
            command.arg(option).arg(path(name));
        }
        command.args(["--bridge", "none", "--iptables=false", "--ip-forward=false", "--cgroup-parent", CGROUP]);
        let daemon = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut this = Self { folder, daemon };
        let log = this.folder.path().join("log");
        let ended = wait_for("dockerd", 60, || match this.daemon.try_wait().unwrap() {
            Some(_) => Some(true),
            None => {
                this.command("docker").arg("info").output().is_ok_and(|output| output.status.success()).then_some(false)
            }
        });
        if ended { Err(std::fs::read_to_string(log).unwrap_or_default()) } else { Ok(this) }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", self.host()).env_remove("DOCKER_CONTEXT").stdin(Stdio::null());
        command
    }

    /// Images of this build's programs, without their debug information.
    fn build_images(&self) {
        let bin = self.folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let services = SERVICES.map(|service| format!("berth-{service}"));
        for name in services.iter().map(String::as_str).chain(["berth", "hull", "berth-init"]) {
            ok(Command::new("strip").arg("-o").arg(bin.join(name)).arg(program(name).unwrap()));
        }
        ok(self.command(repository().join("deploy/images/build").to_str().unwrap()).arg(&bin).env("TAG", "test"));
        std::fs::remove_dir_all(bin).unwrap();
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(CGROUP.trim_start_matches('/')));
        }
    }
}

/// The composition, from a copy of its files with secrets of its own.
struct Project<'a> {
    docker: &'a Docker,
    folder: PathBuf,
    port: u16,
    kubernetes: u16,
}

impl<'a> Project<'a> {
    fn new(docker: &'a Docker) -> Self {
        let folder = docker.folder.path().join("project");
        std::fs::create_dir_all(folder.join("deploy")).unwrap();
        ok(Command::new("cp").arg(repository().join("docker-compose.yml")).arg(&folder));
        ok(Command::new("cp").arg("-r").arg(repository().join("deploy/compose")).arg(folder.join("deploy")));
        let _ = std::fs::remove_dir_all(folder.join("deploy/compose/secrets"));
        ok(&mut Command::new(folder.join("deploy/compose/init")));
        // The node's volume is a folder with the base image in it, kept from run to run.
        let home = program("berth").unwrap().parent().unwrap().with_file_name("compose-test-home");
        for rest in ["run", "node/disks"] {
            let _ = std::fs::remove_dir_all(home.join(rest));
        }
        berth_testkit::base_image(&home, |shared| {
            ok(Command::new(program("berth").unwrap()).args(["image", "build-base"]).env("BERTH_HOME", shared));
            Ok(())
        })
        .unwrap();
        let volume = format!("services:\n  node:\n    volumes: ['{}:/var/lib/berth']\n", home.display());
        std::fs::write(folder.join("docker-compose.override.yml"), volume).unwrap();
        let ports: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |index: usize| ports[index].local_addr().unwrap().port();
        Self { docker, folder, port: port(0), kubernetes: port(1) }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.docker.command("docker-compose");
        command.current_dir(&self.folder).args(args);
        for (name, value) in [
            ("COMPOSE_PROJECT_NAME", "berth".to_owned()),
            ("BERTH_TAG", "test".to_owned()),
            ("BERTH_PORT", self.port.to_string()),
            ("BERTH_KUBERNETES_PORT", self.kubernetes.to_string()),
            ("BERTH_PUBLIC_URL", self.url()),
        ] {
            command.env(name, value);
        }
        command
    }

    fn ok(&self, args: &[&str]) -> String {
        ok(&mut self.command(args))
    }

    /// This machine's address on the composition's network, once the network is made.
    fn host_address(&self) -> IpAddr {
        self.ok(&["up", "--no-start", "postgres"]);
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let address =
            ok(self.docker.command("docker").args(["network", "inspect", "berth_default", "--format", format]));
        address.trim().parse().unwrap()
    }

    /// Starts everything and waits until all of it is healthy; git hosts in `allowed` may have private addresses.
    fn up(&self, allowed: &str) {
        ok(self.command(&["up", "-d"]).env("BERTH_ALLOW_PRIVATE_HOSTS", allowed));
        wait_for("the gateway to be healthy", 120, || {
            let id = self.ok(&["ps", "--quiet", "gateway"]);
            let format = ["inspect", "--format", "{{.State.Health.Status}}", id.trim()];
            (ok(self.docker.command("docker").args(format)).trim() == "healthy").then_some(())
        });
    }

    /// `kill -9` from outside, as a crash: Docker starts it again.
    fn kill(&self, service: &str) {
        let id = self.ok(&["ps", "--quiet", service]);
        let pid = ok(self.docker.command("docker").args(["inspect", "--format", "{{.State.Pid}}", id.trim()]));
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(output) = self.command(&["logs", "--no-color", "--tail", "25"]).output()
        {
            eprintln!("{}", String::from_utf8_lossy(&output.stdout));
        }
        let _ = self.command(&["down", "--volumes", "--timeout", "5"]).output();
    }
}
