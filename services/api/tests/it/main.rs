//! Tests of the api service against a real Postgres.
