//! What `berth automations validate <file>` calls: no network, no workspace.

use serde::Serialize;

use crate::domain::file::{Finding, parse_bytes};
use crate::domain::plan::{Groups, plan};

/// The findings about an automations file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// Nothing is wrong with it.
    pub valid: bool,
    /// What is wrong, by line.
    pub errors: Vec<Finding>,
    /// Keys that are accepted and have no effect yet.
    pub warnings: Vec<Finding>,
    /// Keys of its tasks.
    pub tasks: Vec<String>,
    /// Keys of its services.
    pub services: Vec<String>,
    /// The groups in which everything would start, each after the ones before.
    pub order: Groups,
}

/// Validates an automations file, YAML or JSON.
#[must_use]
pub fn validate(file: &[u8]) -> Validation {
    match parse_bytes(file) {
        Ok(file) => {
            let tasks: Vec<String> = file.tasks.keys().cloned().collect();
            let services: Vec<String> = file.services.keys().cloned().collect();
            let order = plan(&file, tasks.iter().chain(&services).map(String::as_str));
            Validation { valid: true, errors: vec![], warnings: file.warnings.clone(), tasks, services, order }
        }
        Err(refused) => Validation {
            valid: false,
            errors: refused.0,
            warnings: vec![],
            tasks: vec![],
            services: vec![],
            order: vec![],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_order() {
        let validation = validate(b"tasks:\n  b: {command: x, dependsOn: [a]}\n  a: {command: x}\n");
        assert!(validation.valid);
        assert_eq!(validation.order, [["a"], ["b"]]);
        let validation = validate(b"tasks:\n  a: {cmd: x}\n");
        assert!(!validation.valid);
        assert_eq!((validation.errors[0].line, validation.errors[0].column), (2, 3));
    }
}
