//! `berth context parse`.

use crate::args::Output;
use crate::exit::{self, Exit};
use crate::output;

/// Shows what a URL means, offline.
pub(crate) fn parse(format: Output, hosts: &[String], url: &str) -> anyhow::Result<()> {
    let allowed = std::env::var("BERTH_ALLOW_PRIVATE_HOSTS").unwrap_or_default();
    let context = berth_scm::domain::context::parse_for_cli_allowing(url, hosts, &allowed)
        .map_err(|error| Exit::new(exit::FAILURE, berth_http::problem::chain(&error)))?;
    output::result(format, &context, |context| {
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
