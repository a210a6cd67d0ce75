//! Where commits become durable.

use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

use super::object::{Address, Object};
use super::postgres::Postgres;

/// Where the objects are kept.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process only, for tests.
    Memory,
    /// In the schema `kube` of this database, which must have been migrated ([`super::MIGRATION`] is the DDL).
    /// One dedicated connection is held, with an advisory lock that keeps a second server out.
    Postgres(Box<PgConnectOptions>),
}

/// Why the store cannot be opened, or a commit failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database does not answer.
    #[error("cannot connect to the object store's database; check that Postgres runs and that the settings name it")]
    Connect(#[source] sqlx::Error),
    /// The advisory lock is taken.
    #[error(
        "another server holds the object store; stop it first, two writers would give the same resource versions twice"
    )]
    Locked,
    /// The objects cannot be read.
    #[error("cannot read the object store; check that the migrations of the schema `kube` have run")]
    Load(#[source] sqlx::Error),
    /// An object in the store is not JSON.
    #[error(
        "table kube.objects, resource {resource}, namespace {namespace:?}, name {name}: the column body is not an object; restore the row from a backup or delete it"
    )]
    Corrupt {
        /// The collection.
        resource: String,
        /// The object's namespace, empty for cluster-scoped kinds.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// The commit failed, and it is certain that nothing of it was kept.
    #[error("cannot commit to the object store: {0}")]
    Commit(#[source] sqlx::Error),
    /// Somebody else has written: the stored revision is not ours.
    #[error(
        "the object store is at revision {found}, this server at {expected}: another server has written to it; restart this one"
    )]
    Fenced {
        /// The revision this server last committed.
        expected: u64,
        /// The revision that is stored.
        found: i64,
    },
}

/// The writes of one commit. Revisions `base + 1 ..= last` were given in it.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) base: u64,
    pub(crate) last: u64,
    pub(crate) puts: Vec<(Address, Arc<Object>)>,
    pub(crate) deletes: Vec<Address>,
}

/// A row as it was stored.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum Backend {
    Memory,
    Postgres(Box<Postgres>),
}

impl Backend {
    /// Opens the store and reads what is in it: the last revision and every row.
    pub(crate) async fn open(store: Store) -> Result<(Self, u64, Vec<Row>), StoreError> {
        match store {
            Store::Memory => Ok((Self::Memory, 0, Vec::new())),
            Store::Postgres(options) => {
                let (postgres, revision, rows) = Postgres::open(*options).await?;
                Ok((Self::Postgres(Box::new(postgres)), revision, rows))
            }
        }
    }

    pub(crate) async fn commit(&mut self, batch: Batch, stop: &mut watch::Receiver<bool>) -> Result<(), StoreError> {
        match self {
            Self::Memory => Ok(()),
            Self::Postgres(postgres) => postgres.commit(batch, stop).await,
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Memory => {}
            Self::Postgres(postgres) => postgres.close().await,
        }
    }
}
