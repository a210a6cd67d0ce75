//! Workspaces, each with its newest run: one round trip to show one.

#[macro_use]
mod sql;

mod change;
mod list;
mod load;
mod row;
mod start;

pub(crate) use change::{SettingsChange, being_deleted, insert, mark_deleted, mark_deleting, update};
pub(crate) use list::{ListFilter, ListScope, find_stamped, list, list_stamps, stamps};
pub(crate) use load::{LoadError, find, find_many, load};
pub(crate) use row::Stamp;
pub(super) use row::phase;
pub(crate) use start::{context, start_of};
