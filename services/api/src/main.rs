//! The api service as a process of its own: `berth-api CONFIG.toml`.

use axum::Router;
use berth_api::{Api, Config, others};
use berth_service::Parts;

fn main() -> std::process::ExitCode {
    berth_service::main("api", |config: Config, context| async move {
        config.validate()?;
        let (scm, ws_manager) = (context.peer("scm")?, context.peer("ws-manager")?);
        let mut others = Router::new();
        for (service, paths) in others::ROUTES {
            let proxy = context.proxy(service)?;
            others = paths.iter().fold(others, |router, path| router.route(path, proxy.clone()));
        }
        let api = Api::new(config, context.pool()?, context.clock, context.entropy, scm, ws_manager);
        if let Some(link) = api.setup_link().await? {
            tracing::info!("first administrator: {link}");
        }
        let jobs = api.clone();
        let shutdown = context.shutdown;
        Ok(Parts {
            public: api.router().merge(api.protect(others)),
            internal: api.internal_router(),
            callers: &["scm", "automations", "billing", "gateway"],
            proxies: &["gateway"],
            jobs: vec![(
                "jobs",
                Box::pin(async move {
                    jobs.run_jobs(shutdown).await;
                    Ok(())
                }),
            )],
        })
    })
}
