//! `berth task` and `berth service`.

use super::{Context, unit};
use crate::args::{Service, Task};

/// `berth task`.
pub(crate) async fn task(context: &Context, command: Task) -> anyhow::Result<()> {
    match command {
        Task::List(workspace) => unit::list(context, "tasks", &workspace.workspace).await,
        Task::Logs(logs) => unit::logs(context, "tasks", &logs).await,
        Task::Start(task) => unit::act(context, "tasks", &task, "start").await,
        Task::Stop(task) => unit::act(context, "tasks", &task, "stop").await,
    }
}

/// `berth service`.
pub(crate) async fn service(context: &Context, command: Service) -> anyhow::Result<()> {
    match command {
        Service::List(workspace) => unit::list(context, "services", &workspace.workspace).await,
        Service::Logs(logs) => unit::logs(context, "services", &logs).await,
        Service::Start(service) => unit::act(context, "services", &service, "start").await,
        Service::Stop(service) => unit::act(context, "services", &service, "stop").await,
    }
}
