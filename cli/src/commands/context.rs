//! `berth context parse`.

use berth_scm::domain::context::parse as parse_url;

use crate::args::Global;
use crate::exit::{self, Exit};
use crate::home::Home;
use crate::output;
use crate::server::config::Config;

/// Shows what a URL means, offline: to a server with this home's configuration, and with these `--host` flags besides.
pub(crate) fn parse(global: &Global, hosts: &[String], url: &str) -> anyhow::Result<()> {
    let mut known = Config::as_far_as_readable(&Home::find(global.home.as_deref())?)?.scm.known_hosts()?;
    for flag in hosts {
        known
            .add_flag(flag)
            .map_err(|error| Exit::new(exit::USAGE, format!("--host: {:#}", anyhow::Error::from(error))))?;
    }
    let context = parse_url(url, &known)?;
    output::result(global.output, &context, |context| {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let rows = [
            ("provider", word(serde_json::to_value(context.provider).unwrap_or_default())),
            ("host", context.host.clone()),
            ("owner", context.owner.clone()),
            ("name", context.name.clone()),
            ("type", word(serde_json::to_value(context.kind).unwrap_or_default())),
            ("ref", optional(context.reference.clone())),
            ("path", optional(context.path.clone())),
            ("line", optional(context.line.map(|line| line.to_string()))),
            ("number", optional(context.number.map(|number| number.to_string()))),
            ("clone", context.clone_url.clone()),
        ];
        rows.iter().map(|(key, value)| format!("{key:<9} {value}\n")).collect()
    })
}
