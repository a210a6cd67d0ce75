//! The api service as a process of its own: `berth-api CONFIG.toml`.

use berth_api::{Api, Config};
use berth_service::Parts;

fn main() -> std::process::ExitCode {
    berth_service::main("api", |config: Config, context| async move {
        config.validate()?;
        let (scm, ws_manager) = (context.peer("scm")?, context.peer("ws-manager")?);
        let api = Api::new(config, context.pool()?, context.clock, context.entropy, scm, ws_manager);
        let jobs = api.clone();
        let shutdown = context.shutdown;
        Ok(Parts {
            public: api.router(),
            internal: api.internal_router(),
            callers: &["scm", "automations", "billing", "gateway"],
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
