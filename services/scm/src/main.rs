//! Git hosts as a process of its own: `berth-scm CONFIG.toml`.

use berth_scm::{Config, Scm};
use berth_service::Parts;

fn main() -> std::process::ExitCode {
    berth_service::main("scm", |config: Config, context| async move {
        let (clock, entropy) = (context.clock.clone(), context.entropy.clone());
        let scm = Scm::new(&config, context.pool()?, clock, entropy, context.authenticator()?)?;
        Ok(Parts {
            public: scm.router(),
            internal: scm.internal_router(),
            callers: &["api", "node"],
            proxies: &["api"],
            jobs: vec![],
        })
    })
}
