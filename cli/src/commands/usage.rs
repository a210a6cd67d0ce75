//! `berth usage`.

use super::{Context, encode, logs};
use crate::args::{Output, Usage};
use crate::output::{self, cell};

/// Prints usage records and their sums.
pub(crate) async fn run(context: &Context, usage: &Usage) -> anyhow::Result<()> {
    let filters = [
        ("from", &usage.from),
        ("to", &usage.to),
        ("project", &usage.project),
        ("user", &usage.user),
        ("class", &usage.class),
    ];
    let query: String = filters
        .into_iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| format!("&{key}={}", encode(value))))
        .collect();
    if usage.csv {
        let path = format!("/api/v1/usage.csv?{}", query.trim_start_matches('&'));
        return logs::stream(context, &path, output::write).await;
    }
    let mut items: Vec<serde_json::Value> = Vec::new();
    let mut cursor = String::new();
    let totals = loop {
        let mut page: serde_json::Value =
            context.client.get(&format!("/api/v1/usage?limit=200{query}{cursor}")).await?;
        if let Some(records) = page["items"].as_array_mut() {
            items.append(records);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", encode(next)),
            None => break page["totals"].take(),
        }
    };
    let value = serde_json::json!({ "items": items, "totals": totals });
    if context.output == Output::Json {
        return output::result(Output::Json, &value, |_| String::new());
    }
    const COLUMNS: [&str; 6] = ["started_at", "stopped_at", "workspace_name", "class", "repository", "credits"];
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| COLUMNS.iter().map(|column| cell(&item[*column])).collect()).collect();
    let mut text = output::table(&["STARTED", "STOPPED", "WORKSPACE", "CLASS", "REPOSITORY", "CREDITS"], &rows);
    text.push_str(&format!("total: {} credits\n", cell(&value["totals"]["credits"])));
    output::write(text.as_bytes())
}
