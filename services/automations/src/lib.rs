//! Tasks and services of `automations.yaml`.

pub mod domain;
