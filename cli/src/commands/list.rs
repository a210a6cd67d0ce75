//! `berth list`.

use berth_api_types::public::Workspace;

use super::{Context, encode};
use crate::args::List;
use crate::output;

/// Lists workspaces, newest first.
pub(crate) async fn run(context: &Context, list: List) -> anyhow::Result<()> {
    let mut path = format!("/api/v1/workspaces?limit=200&owner={}", if list.all { "all" } else { "me" });
    if let Some(phase) = &list.phase {
        path.push_str(&format!("&phase={}", encode(phase)));
    }
    let workspaces: Vec<Workspace> = context.client.list(&path).await?;
    output::result(context.output, &workspaces, |workspaces| {
        if workspaces.is_empty() {
            return "no workspaces: open a repository with `berth up URL`".to_owned();
        }
        let rows: Vec<Vec<String>> = workspaces
            .iter()
            .map(|workspace| {
                vec![
                    workspace.name.clone(),
                    format!("{:?}", workspace.phase),
                    workspace.class.clone(),
                    workspace.repository.clone(),
                    workspace.reference.clone().unwrap_or_else(|| "-".to_owned()),
                    workspace.id.to_string(),
                    workspace.reason.clone(),
                ]
            })
            .collect();
        output::table(&["NAME", "PHASE", "CLASS", "REPOSITORY", "REF", "ID", "REASON"], &rows)
    })
}
