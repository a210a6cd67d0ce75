//! One file a command.

pub(super) mod checkpoint;
pub(super) mod completion;
pub(super) mod create;
pub(super) mod delete;
pub(super) mod events;
pub(super) mod exec;
pub(super) mod explain;
pub(super) mod features;
pub(super) mod info;
pub(super) mod kill;
pub(super) mod list;
pub(super) mod man;
pub(super) mod pause;
pub(super) mod ps;
pub(super) mod run;
pub(super) mod spec;
pub(super) mod start;
pub(super) mod state;
pub(super) mod update;
pub(super) mod wait;
