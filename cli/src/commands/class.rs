//! `berth class list`.

use berth_api_types::internal::Class;
use berth_api_types::public::Page;

use super::Context;
use crate::output;

/// Lists the classes.
pub(crate) async fn list(context: &Context) -> anyhow::Result<()> {
    let page: Page<Class> = context.client.get("/api/v1/classes").await?;
    output::result(context.output, &page.items, |classes| {
        let rows: Vec<Vec<String>> = classes
            .iter()
            .map(|class| {
                vec![
                    class.name.clone(),
                    format!("{}.{}", class.cpu_millis / 1000, class.cpu_millis % 1000 / 100),
                    output::bytes(class.memory_bytes),
                    output::bytes(class.disk_bytes),
                    class.pids.to_string(),
                    class.credits_per_hour.clone(),
                ]
            })
            .collect();
        output::table(&["NAME", "CPU", "MEMORY", "DISK", "PIDS", "CREDITS/H"], &rows)
    })
}
