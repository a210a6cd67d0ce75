//! Background work. Each job reconciles: it looks at the current state and completes what is unfinished, whoever left it so.

mod prune;
mod reported_audit;
mod resume;
mod sync_instances;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::state::Api;

/// Runs all jobs until `shutdown`; returns earlier if one of them died.
pub(crate) async fn run(api: &Api, shutdown: CancellationToken) {
    let mut jobs = JoinSet::new();
    let (listen_api, token) = (api.clone(), shutdown.clone());
    jobs.spawn(async move {
        let forget = |user| listen_api.cache().forget(user);
        listen_api.changes().listen(listen_api.pool(), forget, token).await;
    });
    let (tell_api, token) = (api.clone(), shutdown.clone());
    jobs.spawn(async move { tell_api.changes().tell(tell_api.pool(), token).await });
    jobs.spawn(sync_instances::run(api.clone(), shutdown.clone()));
    jobs.spawn(resume::run(api.clone(), shutdown.clone()));
    jobs.spawn(reported_audit::run(api.clone(), shutdown.clone()));
    jobs.spawn(prune::run(api.clone(), shutdown.clone()));
    while let Some(ended) = jobs.join_next().await {
        if shutdown.is_cancelled() {
            continue;
        }
        match ended {
            Ok(()) => tracing::error!("a job of the api service ended although nobody asked it to"),
            Err(error) => tracing::error!(%error, "a job of the api service died"),
        }
        return;
    }
}
