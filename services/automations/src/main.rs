//! Tasks and services as a process of its own: `berth-automations CONFIG.toml`.

use berth_automations::{Automations, Config, Dependencies, Nodes};
use berth_service::Parts;

fn main() -> std::process::ExitCode {
    berth_service::main("automations", |config: Config, context| async move {
        let nodes = Nodes::Single(context.peer("node")?);
        let dependencies = Dependencies { api: context.peer("api")?, ws_manager: context.peer("ws-manager")?, nodes };
        let (clock, entropy) = (context.clock.clone(), context.entropy.clone());
        let automations = Automations::new(&config, context.pool()?, clock, entropy, dependencies)?;
        let (public, internal, shutdown) = (automations.router(), automations.internal_router(), context.shutdown);
        let jobs = Box::pin(async move {
            automations.run_jobs(shutdown).await;
            Ok(())
        });
        Ok(Parts { public, internal, callers: &[], proxies: &["api"], jobs: vec![("runs", jobs)] })
    })
}
