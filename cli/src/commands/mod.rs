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

use clap::CommandFactory as _;

use crate::args::{self, Cli, Command, Global, Output};
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
            None => Target::Socket(home.socket()),
        };
        Ok(Self { client: Client::new(target), output: global.output, home })
    }
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        // These need no server, and some of them no async runtime.
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "berth", &mut script);
            crate::output::write(&script)
        }
        Command::Context(args::Context::Parse { hosts, url }) => context::parse(cli.global.output, &hosts, &url),
        Command::Automations(args::Automations::Validate { file }) => automations::validate(cli.global.output, &file),
        Command::CheckConfig { file } => crate::server::config::check(&cli.global, file.as_deref()),
        Command::Server(server) => crate::server::run(&cli.global, server),
        Command::Doctor => doctor::run(&cli.global),
        Command::Image(image) => image::run(&cli.global, image),
        Command::Internal(args::Internal::GitServe { listen, repository, detach, stop }) => {
            git_serve::run(&cli.global, &listen, &repository, detach, stop)
        }
        Command::Internal(args::Internal::Generate { root, check }) => generate::run(&root, check),
        command => {
            let context = Context::new(&cli.global)?;
            // A command waits for one server: one thread is enough, and starts faster.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let result = runtime.block_on(dispatch(&context, &cli.global, command));
            // A pending read of the terminal must not keep the process alive.
            runtime.shutdown_background();
            result
        }
    }
}

async fn dispatch(context: &Context, global: &Global, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => up::run(context, global, up).await,
        Command::List(list) => list::run(context, list).await,
        Command::Show(workspace) => show::run(context, &workspace.workspace).await,
        Command::Start(wait) => start::run(context, &wait).await,
        Command::Stop(wait) => stop::run(context, &wait).await,
        Command::Delete(wait) => delete::run(context, &wait).await,
        Command::Rename { workspace, name } => rename::run(context, &workspace, &name).await,
        Command::Logs(logs) => logs::run(context, &logs).await,
        Command::Exec(exec) => exec::run(context, exec).await,
        Command::Shell(shell) => shell::run(context, shell).await,
        Command::Cp { from, to } => copy::run(context, &from, &to).await,
        Command::Ports(workspace) => ports::list(context, &workspace.workspace).await,
        Command::PortForward { workspace, ports } => ports::forward(context, &workspace, &ports).await,
        Command::GitCredential(command) => git_credential::run(context, command).await,
        Command::Class(args::Class::List) => class::list(context).await,
        Command::Usage(usage) => usage::run(context, &usage).await,
        Command::Task(command) => task::task(context, command).await,
        Command::Service(command) => task::service(context, command).await,
        Command::Token(command) => token::run(context, command).await,
        Command::Login { url } => login::login(context, global, &url).await,
        Command::Logout => login::logout(context.output),
        Command::Kubeconfig => crate::server::kubeconfig::print(&context.home, context.output),
        Command::SupportBundle { file } => support_bundle::run(context, &file).await,
        Command::Completion { .. }
        | Command::Context(_)
        | Command::Automations(_)
        | Command::CheckConfig { .. }
        | Command::Server(_)
        | Command::Doctor
        | Command::Image(_)
        | Command::Internal(_) => Ok(()),
    }
}

/// Encodes a value for a path segment or query.
pub(crate) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
