//! Usage and its price as a process of its own: `berth-billing CONFIG.toml`.

use berth_billing::{Billing, Config};
use berth_service::Parts;

fn main() -> std::process::ExitCode {
    berth_service::main("billing", |config: Config, context| async move {
        let (clock, entropy) = (context.clock.clone(), context.entropy.clone());
        let ws_manager = context.peer("ws-manager")?;
        let billing = Billing::new(&config, context.pool()?, clock, entropy, context.authenticator()?, ws_manager)?;
        let (public, internal, shutdown) = (billing.router(), billing.internal_router(), context.shutdown);
        let jobs = Box::pin(async move {
            billing.run_jobs(shutdown).await;
            Ok(())
        });
        Ok(Parts { public, internal, callers: &[], proxies: &["api"], jobs: vec![("usage", jobs)] })
    })
}
