//! `GET /internal/classes`: what a workspace can get, and its price.

use axum::extract::State;
use berth_api_types::internal::Class;
use berth_http::{Json, Problem};
use kube::ResourceExt as _;

use super::App;

/// The default class first, then from small to large.
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<Class>>, Problem> {
    super::ready(&app).await?;
    let mut classes: Vec<Class> = app
        .cluster
        .classes
        .all()
        .iter()
        .map(|class| {
            let (name, spec) = (class.name_any(), class.spec.clone());
            let display_name = if spec.display_name.is_empty() { name.clone() } else { spec.display_name };
            Class {
                name,
                display_name,
                cpu_millis: spec.cpu_millis,
                memory_bytes: spec.memory_bytes,
                disk_bytes: spec.disk_bytes,
                pids: spec.pids,
                io_bytes_per_second: spec.io_bytes_per_second,
                no_new_privileges: spec.no_new_privileges,
                credits_per_hour: spec.credits_per_hour,
            }
        })
        .collect();
    let default = &app.config.default_class;
    classes.sort_by(|a, b| {
        let rank = |class: &Class| (class.name != *default, class.memory_bytes, class.cpu_millis);
        rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
    });
    Ok(Json(classes))
}
