//! Tasks and services have the same operations at two paths: each is written, and documented, once.

use berth_api_types::automations::AutomationKind;
use utoipa::openapi::path::{Operation, Paths};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::State;

/// What a handler of such an operation gets: which of the two its path stands for.
#[derive(Clone)]
pub(crate) struct OfKind {
    pub(crate) state: State,
    pub(crate) kind: AutomationKind,
}

pub(crate) const fn noun(kind: AutomationKind) -> &'static str {
    match kind {
        AutomationKind::Task => "task",
        AutomationKind::Service => "service",
    }
}

/// An operation at the path of one kind: its document says `{kind}` and `{kinds}` where that is to be named.
pub(super) fn named(kind: AutomationKind, operation: UtoipaMethodRouter<OfKind>) -> UtoipaMethodRouter<OfKind> {
    let (schemas, paths, methods) = operation;
    let noun = noun(kind);
    let name = |text: &str| text.replace("{kinds}", &format!("{noun}s")).replace("{kind}", noun);
    let mut named = Paths::new();
    for (path, mut item) in paths.paths {
        for Operation { operation_id, summary, .. } in [&mut item.get, &mut item.post].into_iter().flatten() {
            for text in [operation_id, summary].into_iter().flatten() {
                *text = name(text);
            }
        }
        named.paths.insert(name(&path), item);
    }
    (schemas, named, methods)
}
