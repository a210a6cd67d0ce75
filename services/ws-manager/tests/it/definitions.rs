//! Filled in below: generated files.
