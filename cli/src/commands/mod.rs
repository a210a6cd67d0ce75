//! One file a command.

mod automations;
mod class;
mod context;
mod copy;
mod credentials;
mod delete;
mod doctor;
mod exec;
mod generate;
mod git_credential;
mod git_serve;
mod image;
mod list;
mod login;
mod logs;
mod ports;
mod receipt;
mod rename;
mod setup;
mod shell;
mod show;
mod special_files;
mod start;
mod stop;
mod support_bundle;
mod task;
mod terminal;
mod token;
mod unit;
mod up;
mod usage;
mod window;

use clap::CommandFactory as _;

use crate::args::{self, Cli, ClientCommand, Command, Global, LocalCommand, Output};
use crate::client::{Client, Target};
use crate::home::Home;

/// What every command needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The server.
    pub client: Client,
    /// How to print.
    pub output: Output,
    /// This machine's server.
    pub home: Home,
}

impl Context {
    fn new(global: &Global) -> anyhow::Result<Self> {
        let home = Home::find(global.home.as_deref())?;
        let target = match credentials::chosen(global)? {
            Some(remote) => remote,
            None => Target::Socket { path: home.socket(), token: global.token.clone() },
        };
        Ok(Self { client: Client::new(target), output: global.output, home })
    }
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Local(command) => here(&cli.global, command),
        Command::Client(command) => {
            let context = Context::new(&cli.global)?;
            // A command waits for one server: one thread is enough, and starts faster.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let result = runtime.block_on(ask(&context, &cli.global, command));
            // A read of the terminal that still waits must not keep us.
            runtime.shutdown_background();
            result
        }
    }
}

fn here(global: &Global, command: LocalCommand) -> anyhow::Result<()> {
    match command {
        LocalCommand::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "berth", &mut script);
            crate::output::write(&script)
        }
        LocalCommand::Context(args::Context::Parse { hosts, url }) => context::parse(global, &hosts, &url),
        LocalCommand::Automations(args::Automations::Validate { file }) => automations::validate(global.output, &file),
        LocalCommand::CheckConfig { file } => crate::server::config::check(global, file.as_deref()),
        LocalCommand::Server(server) => crate::server::run(global, server),
        LocalCommand::Doctor => doctor::run(global),
        LocalCommand::Image(image) => image::run(global, image),
        LocalCommand::Internal(args::Internal::GitServe { listen, repository, detach, stop }) => {
            git_serve::run(global, &listen, &repository, detach, stop)
        }
        LocalCommand::Internal(args::Internal::Generate { root, check }) => generate::run(&root, check),
    }
}

async fn ask(context: &Context, global: &Global, command: ClientCommand) -> anyhow::Result<()> {
    match command {
        ClientCommand::Up(up) => up::run(context, global, up).await,
        ClientCommand::List(list) => list::run(context, list).await,
        ClientCommand::Show(workspace) => show::run(context, &workspace.workspace).await,
        ClientCommand::Start(wait) => start::run(context, &wait).await,
        ClientCommand::Stop(wait) => stop::run(context, &wait).await,
        ClientCommand::Delete(wait) => delete::run(context, &wait).await,
        ClientCommand::Rename { workspace, name } => rename::run(context, &workspace, &name).await,
        ClientCommand::Logs(logs) => logs::run(context, &logs).await,
        ClientCommand::Exec(exec) => exec::run(context, exec).await,
        ClientCommand::Shell(shell) => shell::run(context, shell).await,
        ClientCommand::Cp { from, to } => copy::run(context, &from, &to).await,
        ClientCommand::Ports(workspace) => ports::list(context, &workspace.workspace).await,
        ClientCommand::PortForward { workspace, ports } => ports::forward(context, &workspace, &ports).await,
        ClientCommand::GitCredential(command) => git_credential::run(context, command).await,
        ClientCommand::Class(args::Class::List) => class::list(context).await,
        ClientCommand::Usage(usage) => usage::run(context, &usage).await,
        ClientCommand::Task(command) => task::task(context, command).await,
        ClientCommand::Service(command) => task::service(context, command).await,
        ClientCommand::Token(command) => token::run(context, command).await,
        ClientCommand::Login { url } => login::login(context, global, &url).await,
        ClientCommand::Setup { link, name, email } => setup::run(context, global, &link, &name, &email).await,
        ClientCommand::Logout => login::logout(context.output),
        ClientCommand::Kubeconfig => crate::server::kubeconfig::print(&context.home, context.output),
        ClientCommand::SupportBundle { file } => support_bundle::run(context, &file).await,
    }
}

/// Encodes a value for a path segment or query.
pub(crate) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
