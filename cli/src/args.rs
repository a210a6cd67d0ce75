//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit;
use crate::values::{self, PortPair};

/// A repository URL in, a running workspace out.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    propagate_version = true,
    after_help = exit::HELP,
    after_long_help = exit::HELP,
    max_term_width = 120
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where to reach the server, and how to print.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// How to print results
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Output::Text, help_heading = "Global options")]
    pub output: Output,
    /// Remote server, for example https://berth.example.com; default: what `berth login` stored, else this machine's
    #[arg(long, global = true, env = "BERTH_SERVER", value_name = "URL", help_heading = "Global options")]
    pub server: Option<String>,
    /// PEM file with the CA of the remote server's certificate
    #[arg(long, global = true, env = "BERTH_CA_CERT", value_name = "FILE", help_heading = "Global options")]
    pub ca_cert: Option<PathBuf>,
    /// Where this machine's server keeps its state
    #[arg(long, global = true, env = "BERTH_HOME", value_name = "DIR", help_heading = "Global options")]
    pub home: Option<PathBuf>,
    /// Personal access token, to act as its user; prefer `berth login` or the variable
    #[arg(
        long,
        global = true,
        env = "BERTH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Global options"
    )]
    pub token: Option<String>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables and sentences, for people.
    Text,
    /// JSON, for programs.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Those that ask a server.
    #[command(flatten)]
    Client(ClientCommand),
    /// Those of this machine.
    #[command(flatten)]
    Local(LocalCommand),
}

/// Commands that ask a server.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Open a repository in a new workspace
    #[command(after_help = "Example: berth up https://github.com/rust-lang/cargo/tree/master --class small")]
    Up(Up),
    /// List your workspaces
    #[command(visible_alias = "ls", after_help = "Example: berth list --output json")]
    List(List),
    /// Show a workspace, with the receipt of its last start
    #[command(after_help = "Example: berth show cargo")]
    Show(Workspace),
    /// Start a stopped workspace
    #[command(after_help = "Example: berth start cargo")]
    Start(Wait),
    /// Stop a workspace; its disk stays
    #[command(after_help = "Example: berth stop cargo")]
    Stop(Wait),
    /// Delete a workspace and its disk
    #[command(visible_alias = "rm", after_help = "Example: berth delete cargo")]
    Delete(Wait),
    /// Rename a workspace
    #[command(after_help = "Example: berth rename cargo cargo-fix")]
    Rename {
        /// Id or name
        #[arg(value_parser = values::workspace)]
        workspace: String,
        /// New name
        name: String,
    },
    /// Print what the workspace's main process and start wrote
    #[command(
        after_help = "With --output json: a list of {\"line\"}; with --follow, one such object on a line for each as it comes.\n\nExample: berth logs cargo --follow"
    )]
    Logs(Logs),
    /// Run a command in a workspace; its exit status is ours
    #[command(
        after_help = "What the command writes is passed on as it is, whatever --output says.\n\nExample: berth exec cargo -- cargo test"
    )]
    Exec(Exec),
    /// Open a shell in a workspace
    #[command(after_help = "Example: berth shell cargo")]
    Shell(Shell),
    /// Copy files into or out of a workspace
    #[command(
        after_help = "Named pipes, sockets and devices are passed over; those of this machine are named on standard error.\n\n`-` is standard input or output, for the content of one file.\n\nExamples:\n  berth cp notes.txt cargo:docs/\n  berth cp cargo:/var/log ./logs\n  berth cp cargo:notes.txt - | less"
    )]
    Cp {
        /// Path here, or WORKSPACE:PATH
        from: String,
        /// Path here, or WORKSPACE:PATH
        to: String,
    },
    /// List the ports that programs in a workspace listen on
    #[command(after_help = "Example: berth ports cargo")]
    Ports(Workspace),
    /// Forward local ports into a workspace
    #[command(after_help = "Example: berth port-forward cargo 8080 5433:5432    (LOCAL:REMOTE)")]
    PortForward {
        /// Id or name
        #[arg(value_parser = values::workspace)]
        workspace: String,
        /// PORT, or LOCAL:REMOTE
        #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
        ports: Vec<PortPair>,
    },
    /// Credentials that git uses in your workspaces, one a host
    #[command(subcommand, after_help = "Example: berth git-credential add git.example.com --username me < token.txt")]
    GitCredential(GitCredential),
    /// Workspace classes
    #[command(subcommand, after_help = "Example: berth class list")]
    Class(Class),
    /// What was used, and its credits
    #[command(after_help = "Example: berth usage --from 2026-11-01 --csv > november.csv")]
    Usage(Usage),
    /// Tasks of a workspace's automations.yaml
    #[command(subcommand, after_help = "Example: berth task logs cargo build")]
    Task(Task),
    /// Services of a workspace's automations.yaml
    #[command(subcommand, after_help = "Example: berth service start cargo database")]
    Service(Service),
    /// Collect what helps to find a fault, without secrets
    #[command(after_help = "Example: berth support-bundle --file bundle.tar")]
    SupportBundle {
        /// Where to write it
        #[arg(long, default_value = "berth-support.tar")]
        file: PathBuf,
    },
    /// Sign in to a remote server with a personal access token
    #[command(after_help = "Example: berth login https://berth.example.com < token.txt")]
    Login {
        /// The server
        url: String,
    },
    /// Make the first administrator with a server's one-time link, and sign in as them
    #[command(
        after_help = "The password, 12 characters at least, is read from standard input.\n\nExample: berth setup 'https://berth.example.com/setup#TOKEN' --name Ada --email ada@example.com < password.txt"
    )]
    Setup {
        /// The link, as the server printed it
        link: String,
        /// The administrator's name
        #[arg(long)]
        name: String,
        /// Their e-mail address
        #[arg(long)]
        email: String,
    },
    /// Forget the stored sign-in
    #[command(after_help = "Example: berth logout")]
    Logout,
    /// Personal access tokens
    #[command(subcommand, after_help = "Example: berth token create laptop --expires-in-days 30")]
    Token(Token),
    /// Print a kubeconfig for this machine's embedded Kubernetes API
    #[command(
        after_help = "Example: berth kubeconfig > ~/.kube/berth && KUBECONFIG=~/.kube/berth kubectl -n berth get workspaces"
    )]
    Kubeconfig,
}

/// Commands that need no server, or are one.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Check an automations.yaml without a server
    #[command(subcommand, after_help = "Example: berth automations validate .berth/automations.yaml")]
    Automations(Automations),
    /// Understand a context URL without a server
    #[command(
        subcommand,
        after_help = "Example: berth context parse https://github.com/rust-lang/cargo/pull/1 --output json"
    )]
    Context(Context),
    /// Run the server: every service, the database and the node in one process
    #[command(after_help = "Example: berth server --detach --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem")]
    Server(Server),
    /// Check that this machine can run workspaces
    #[command(after_help = "Example: berth doctor")]
    Doctor,
    /// Check a configuration file and print what it means
    #[command(after_help = "Example: berth check-config /etc/berth/berth.toml")]
    CheckConfig {
        /// The file; default: the one the server would read
        file: Option<PathBuf>,
    },
    /// Images on this machine's node
    #[command(subcommand, after_help = "Example: berth image build-base")]
    Image(Image),
    /// What Berth's own build uses
    #[command(subcommand, hide = true)]
    Internal(Internal),
    /// Print a completion script
    #[command(after_help = "Example: berth completion bash > /etc/bash_completion.d/berth")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `berth up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Repository, branch, tag, commit, pull request, issue, file or folder on a git host
    pub context_url: String,
    /// Workspace class (`berth class list`)
    #[arg(long)]
    pub class: Option<String>,
    /// Name; default: made from the repository's
    #[arg(long)]
    pub name: Option<String>,
    /// Container image; default: the repository's devcontainer.json, else Berth's base image
    #[arg(long)]
    pub image: Option<String>,
    /// Open your newest workspace of this URL, if there is one, instead of making another
    #[arg(long, conflicts_with = "name")]
    pub resume: bool,
    /// Return when the workspace is accepted
    #[arg(long)]
    pub no_wait: bool,
    /// Do not open a shell when it runs
    #[arg(long)]
    pub no_shell: bool,
}

/// `berth list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those in this phase
    #[arg(long, value_parser = PossibleValuesParser::new(values::PHASES))]
    pub phase: Option<String>,
    /// Those of everyone (administrators)
    #[arg(long)]
    pub all: bool,
}

/// A workspace.
#[derive(Debug, Args)]
pub(crate) struct Workspace {
    /// Id or name
    #[arg(value_parser = values::workspace)]
    pub workspace: String,
}

/// A workspace and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Id or name
    #[arg(value_parser = values::workspace)]
    pub workspace: String,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
}

/// `berth logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Id or name
    #[arg(value_parser = values::workspace)]
    pub workspace: String,
    /// Go on as more is written
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
}

/// `berth exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Id or name
    #[arg(value_parser = values::workspace)]
    pub workspace: String,
    /// Working directory, absolute or below the checkout; default: the checkout
    #[arg(long, short = 'w', value_name = "DIR")]
    pub workdir: Option<String>,
    /// Environment variable; without a value, the one it has here
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = values::env)]
    pub env: Vec<String>,
    /// User to run as; default: the image's
    #[arg(long, short)]
    pub user: Option<String>,
    /// With a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Program and arguments
    #[arg(required = true, last = true)]
    pub command: Vec<String>,
}

/// `berth shell`.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// Id or name
    #[arg(value_parser = values::workspace)]
    pub workspace: String,
    /// Attach to a terminal that is open already (`berth shell WS --list`)
    #[arg(long, value_name = "ID")]
    pub attach: Option<String>,
    /// List the open terminals
    #[arg(long)]
    pub list: bool,
}

/// `berth git-credential`.
#[derive(Debug, Subcommand)]
pub(crate) enum GitCredential {
    /// Store a credential; the password or token is read from standard input
    #[command(after_help = "Example: berth git-credential add git.example.com --username me < token.txt")]
    Add {
        /// Host, with a port that is not the default
        host: String,
        /// User name
        #[arg(long, default_value = "git")]
        username: String,
    },
    /// List the hosts there are credentials for
    #[command(after_help = "Example: berth git-credential list")]
    List,
    /// Remove the credential of a host
    #[command(after_help = "Example: berth git-credential remove git.example.com")]
    Remove {
        /// Host
        host: String,
    },
}

/// `berth class`.
#[derive(Debug, Subcommand)]
pub(crate) enum Class {
    /// List them
    #[command(after_help = "Example: berth class list")]
    List,
}

/// `berth usage`.
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// From this time: a date, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub from: Option<String>,
    /// To this time, which is no longer counted
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub to: Option<String>,
    /// Only this repository: HOST/OWNER/NAME, or its URL
    #[arg(long)]
    pub project: Option<String>,
    /// Only this user: an id, or `me`
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// Only this class
    #[arg(long)]
    pub class: Option<String>,
    /// As CSV (RFC 4180)
    #[arg(long)]
    pub csv: bool,
}

/// `berth task`.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List tasks and their newest run
    #[command(after_help = "Example: berth task list cargo")]
    List(Workspace),
    /// Print a task's output
    #[command(after_help = "Example: berth task logs cargo build --follow")]
    Logs(UnitLogs),
    /// Run a task
    #[command(after_help = "Example: berth task start cargo build")]
    Start(Unit),
    /// Stop a task
    #[command(after_help = "Example: berth task stop cargo build")]
    Stop(Unit),
}

/// `berth service`.
#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// List services and their state
    #[command(after_help = "Example: berth service list cargo")]
    List(Workspace),
    /// Print a service's output
    #[command(after_help = "Example: berth service logs cargo database --follow")]
    Logs(UnitLogs),
    /// Start a service
    #[command(after_help = "Example: berth service start cargo database")]
    Start(Unit),
    /// Stop a service
    #[command(after_help = "Example: berth service stop cargo database")]
    Stop(Unit),
}

/// A task or service.
#[derive(Debug, Args)]
pub(crate) struct Unit {
    /// Id or name of the workspace
    #[arg(value_parser = values::workspace)]
    pub workspace: String,
    /// Key in automations.yaml
    pub name: String,
}

/// A task's or service's output.
#[derive(Debug, Args)]
pub(crate) struct UnitLogs {
    /// Id or name of the workspace
    #[arg(value_parser = values::workspace)]
    pub workspace: String,
    /// Key in automations.yaml
    pub name: String,
    /// Go on as more is written
    #[arg(long, short)]
    pub follow: bool,
}

/// `berth automations`.
#[derive(Debug, Subcommand)]
pub(crate) enum Automations {
    /// Check a file; mistakes are named with line and column
    #[command(after_help = "Example: berth automations validate .berth/automations.yaml")]
    Validate {
        /// The file; `-` is standard input
        file: PathBuf,
    },
}

/// `berth context`.
#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// Show what a URL means
    #[command(
        after_help = "Example: berth context parse --host git.example.com=gitea https://git.example.com/team/app"
    )]
    Parse {
        /// A self-hosted host and its kind (github, gitlab, bitbucket, bitbucket-dc, azure-devops, gitea, git)
        #[arg(long = "host", value_name = "NAME[:PORT][/BASE]=KIND")]
        hosts: Vec<String>,
        /// The URL
        url: String,
    },
}

/// `berth token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its secret is shown once
    #[command(after_help = "Example: berth token create laptop --expires-in-days 30")]
    Create {
        /// What to call it
        name: String,
        /// Days until it ends
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
    },
    /// List your tokens
    #[command(after_help = "Example: berth token list")]
    List,
    /// End a token
    #[command(after_help = "Example: berth token revoke 01a21bb6-b600-702b-9b24-7dfb56630623")]
    Revoke {
        /// Its id
        id: String,
    },
}

/// `berth image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build the base image from Debian packages, unless it is there
    #[command(after_help = "Example: berth image build-base")]
    BuildBase,
    /// Import an image from a tar (docker-archive or OCI) or an OCI layout folder
    #[command(after_help = "Example: berth image import tools.tar berth/tools:1 && berth up URL --image berth/tools:1")]
    Import {
        /// The tar or folder; PATH:TAG if it holds several images
        path: PathBuf,
        /// Reference to import it as, for example berth/tools:1
        reference: String,
    },
    /// List the images on the node
    #[command(after_help = "Example: berth image list")]
    List,
}

/// `berth internal`.
#[derive(Debug, Subcommand)]
pub(crate) enum Internal {
    /// Serve git repositories over smart HTTP on loopback (`make run` without a network)
    GitServe {
        /// Address
        #[arg(long, default_value = "127.0.0.1:7171")]
        listen: String,
        /// owner/name=FOLDER; the folder's branches and tags are copied at the start
        #[arg(long, value_name = "OWNER/NAME=FOLDER")]
        repository: Vec<String>,
        /// Run in the background, unless one does
        #[arg(long)]
        detach: bool,
        /// Stop the one in the background
        #[arg(long)]
        stop: bool,
    },
    /// Write the generated files of the repository, or check them
    Generate {
        /// Root of the repository
        root: PathBuf,
        /// Fail when a file differs
        #[arg(long)]
        check: bool,
    },
}

/// `berth server`.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// What to do instead of running it here
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
    /// Run in the background; returns when the server is ready
    #[arg(long)]
    pub detach: bool,
    /// Address of the public API, for example 0.0.0.0:443; default 127.0.0.1:7070
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Certificate chain in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Configuration file; default: berth.toml in BERTH_HOME or /etc/berth
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do with a server.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Stop the server; workspaces go on running
    #[command(after_help = "Example: berth server stop")]
    Stop,
    /// Show whether it runs
    #[command(after_help = "Example: berth server status --output json")]
    Status,
    /// Print a one-time link that makes the first administrator
    #[command(after_help = "Example: berth server setup-link")]
    SetupLink,
}
