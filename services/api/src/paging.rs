//! Pages of lists.

use berth_api_types::public::Page;
use berth_http::Cursor;
use serde::Serialize;

/// What to ask the store for: one more than is wanted tells whether there is another page.
pub(crate) fn one_more(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// Cuts the extra item off; `position` of the last one that stays is where the next page begins.
pub(crate) fn page<T, P: Serialize>(mut items: Vec<T>, limit: u32, position: impl Fn(&T) -> P) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| Cursor::encode(&position(last)));
    Page { items, next_cursor }
}
