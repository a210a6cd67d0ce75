//! `berth up`: the main thing.

use std::io::IsTerminal as _;

use berth_api_types::public::{CreateWorkspace, Phase, Workspace};

use super::{Context, encode, receipt, shell, start};
use crate::args::{Global, Output, Up};
use crate::client::Target;
use crate::exit::{self, Exit};
use crate::output;

/// Opens a repository. With `--name`, an existing workspace of that name and repository is started and opened instead; with `--resume`, the
/// newest one of that repository.
pub(crate) async fn run(context: &Context, global: &Global, up: Up) -> anyhow::Result<()> {
    if let Target::Socket { .. } = context.client.target()
        && !context.client.reachable().await
    {
        output::note("no server runs on this machine: starting one");
        // It blocks, and has an async runtime of its own.
        let global = global.clone();
        tokio::task::spawn_blocking(move || crate::server::detach::start(&global, &[])).await??;
    }
    let existing = match &up.name {
        Some(name) => find(context, name).await?,
        None if up.resume => newest_of(context, &up.context_url).await?,
        None => None,
    };
    let workspace = match existing {
        Some(workspace) => resume(context, workspace, &up).await?,
        None => match (create(context, &up).await, &up.name) {
            // Somebody else, at the same moment, was asked for the same.
            (Err(error), Some(name)) if Exit::code(&error) == Some("name_taken") => match find(context, name).await? {
                Some(workspace) => resume(context, workspace, &up).await?,
                None => return Err(error),
            },
            (created, _) => created?,
        },
    };
    if up.no_wait {
        return output::result(context.output, &workspace, |workspace| {
            format!(
                "{} ({}) is being started: follow it with `berth show {}`",
                workspace.name, workspace.id, workspace.name
            )
        });
    }
    let workspace =
        if workspace.phase == Phase::Running { workspace } else { start::until_running(context, &workspace).await? };
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if context.output == Output::Text && interactive && !up.no_shell {
        if let Some(total) = workspace.receipt.total_us {
            output::note(format!("  {} is ready after {}", workspace.name, output::duration(total)));
        }
        return shell::open(context, &workspace.id.to_string()).await;
    }
    output::result(context.output, &workspace, |workspace| {
        format!(
            "{name} is running ({url})\n\n{receipt}\n  a shell:    berth shell {name}\n  a command:  berth exec {name} -- git status\n  stop it:    berth stop {name}\n",
            name = workspace.name,
            url = workspace.repository,
            receipt = receipt::text(workspace),
        )
    })
}

async fn find(context: &Context, name: &str) -> anyhow::Result<Option<Workspace>> {
    match context.client.get(&format!("/api/v1/workspaces/{}", encode(name))).await {
        Ok(workspace) => Ok(Some(workspace)),
        Err(error) if error.downcast_ref::<Exit>().is_some_and(|exit| exit.status == exit::NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn newest_of(context: &Context, context_url: &str) -> anyhow::Result<Option<Workspace>> {
    let own: Vec<Workspace> = context.client.list("/api/v1/workspaces?limit=200&owner=me").await?;
    Ok(own.into_iter().find(|workspace| workspace.context_url == context_url))
}

async fn resume(context: &Context, workspace: Workspace, up: &Up) -> anyhow::Result<Workspace> {
    if workspace.context_url != up.context_url {
        return Err(Exit::new(
            exit::CONFLICT,
            format!("{} is a workspace of {}: choose another --name", workspace.name, workspace.context_url),
        )
        .into());
    }
    match workspace.phase {
        Phase::Stopped | Phase::Stopping => start::begin(context, &workspace.id.to_string(), !up.no_wait).await,
        _ => Ok(workspace),
    }
}

async fn create(context: &Context, up: &Up) -> anyhow::Result<Workspace> {
    let request = CreateWorkspace {
        context_url: up.context_url.clone(),
        class: up.class.clone(),
        name: up.name.clone(),
        image: up.image.clone(),
        start: true,
        organization_id: None,
        inactivity_seconds: None,
    };
    context.client.post("/api/v1/workspaces", &request).await
}
