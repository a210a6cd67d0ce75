//! Reads the automations file of a workspace and starts what its triggers say.

use berth_http::Upgraded;
use berth_supervisor_client::protocol::ErrorCode;
use berth_supervisor_client::{ClientError, SupervisorClient};

use super::{Jobs, WorkError};
use crate::domain::definition::Definitions;
use crate::domain::file::{MAX_FILE_BYTES, PATHS, Trigger, parse_bytes};
use crate::domain::plan::plan;
use crate::store::executions::{self, NewRun};
use crate::store::workspaces::{self, Busy, FileStatus, Read};

impl Jobs {
    /// Reads the file of an instance if that is due, and makes the runs that the start of the workspace triggers, in one transaction.
    pub(super) async fn read_file(&self, busy: &Busy) -> Result<(), WorkError> {
        let mut conn = self.pool.acquire().await?;
        if workspaces::wants_read(&mut conn, busy).await? == Read::Done {
            return Ok(());
        }
        drop(conn);
        let (status, definitions) = self.look(busy).await?;
        let mut transaction = self.pool.begin().await?;
        // Checked again, under a lock: the instance may have stopped meanwhile.
        workspaces::lock(&mut transaction, busy.workspace_id).await?;
        let wanted = workspaces::wants_read(&mut transaction, busy).await?;
        if wanted == Read::Done {
            return Ok(());
        }
        let now = self.clock.now();
        workspaces::was_read(&mut transaction, busy, &status, definitions.as_ref(), now).await?;
        if let (Read::AtStart { first }, Some(definitions)) = (wanted, &definitions) {
            let mut triggers = vec![Trigger::PostEnvironmentStart];
            if first {
                triggers.insert(0, Trigger::PostDevcontainerStart);
            }
            let trigger_of = |key: &str| {
                let triggered_by = &definitions.0.get(key)?.triggered_by;
                triggers.iter().find(|trigger| triggered_by.contains(trigger)).copied()
            };
            let triggered: Vec<&str> =
                definitions.0.keys().map(String::as_str).filter(|key| trigger_of(key).is_some()).collect();
            for key in plan(definitions, triggered).into_iter().flatten() {
                let Some(definition) = definitions.0.get(&key) else { continue };
                let new = NewRun {
                    id: self.next_id(),
                    workspace: busy.workspace_id,
                    instance: busy.instance_id,
                    reference: &key,
                    definition,
                    started_by: trigger_of(&key).map_or("dependency", Trigger::name),
                };
                executions::create(&mut transaction, &new, now).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Looks for the file in the workspace. Returns definitions if they replace the known ones.
    async fn look(&self, busy: &Busy) -> Result<(FileStatus, Option<Definitions>), WorkError> {
        // The default folder of a workspace is the checkout; a workspace whose default folder is another one has it here.
        let checkout = checkout_path(&busy.repository);
        let candidates = PATHS
            .iter()
            .map(|path| ((*path).to_owned(), *path))
            .chain(PATHS.iter().map(|path| (format!("{checkout}/{path}"), *path)));
        for (full, shown) in candidates {
            // A request about a file ends its connection.
            let mut supervisor = self.supervisors.connect(busy.instance_id).await?;
            match read(&mut supervisor, &full).await? {
                Content::Missing => {}
                Content::Unreadable(reason) => {
                    let finding = crate::domain::file::Finding { line: 1, column: 1, message: reason };
                    let status = FileStatus {
                        state: "unreadable",
                        path: shown.to_owned(),
                        errors: vec![finding],
                        warnings: vec![],
                    };
                    return Ok((status, None));
                }
                Content::File(bytes) => return Ok(understood(shown, &bytes)),
            }
        }
        let status = FileStatus { state: "absent", ..FileStatus::default() };
        Ok((status, Some(Definitions::default())))
    }
}

fn understood(path: &str, bytes: &[u8]) -> (FileStatus, Option<Definitions>) {
    match parse_bytes(bytes) {
        Ok(file) => {
            let definitions = Definitions::from(&file);
            let status =
                FileStatus { state: "applied", path: path.to_owned(), errors: vec![], warnings: file.warnings };
            (status, Some(definitions))
        }
        Err(refused) => {
            let status = FileStatus { state: "refused", path: path.to_owned(), errors: refused.0, warnings: vec![] };
            (status, None)
        }
    }
}

enum Content {
    Missing,
    Unreadable(String),
    File(Vec<u8>),
}

async fn read(supervisor: &mut SupervisorClient<Upgraded>, path: &str) -> Result<Content, ClientError> {
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    match supervisor.read_file(path, limit).await {
        Ok((info, _)) if info.truncated => {
            Ok(Content::Unreadable(format!("the file is larger than {} KiB", MAX_FILE_BYTES / 1024)))
        }
        Ok((_, bytes)) => Ok(Content::File(bytes)),
        Err(ClientError::Refused { code: ErrorCode::NotFound, .. }) => Ok(Content::Missing),
        Err(ClientError::Refused { message, .. }) => {
            Ok(Content::Unreadable(format!("the file cannot be read: {}", super::worker::clean(&message))))
        }
        Err(error) => Err(error),
    }
}

/// Folder of the checkout of `host/owner/name`.
fn checkout_path(repository: &str) -> String {
    let name = repository.rsplit('/').next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain = !name.is_empty() && name.len() <= 100 && name.chars().all(allowed) && !name.starts_with(['.', '-']);
    format!("/workspace/{}", if plain { name } else { "repository" })
}
