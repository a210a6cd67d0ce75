//! A fresh database per test, cloned from a migrated template on one real Postgres that all tests of this machine share.

use std::path::PathBuf;

use anyhow::Context as _;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

/// A database that is dropped when the test ends.
#[derive(Debug)]
pub struct TestDatabase {
    /// A pool on it.
    pub pool: PgPool,
    /// Its URL.
    pub url: String,
    name: String,
    server: String,
}

/// A fresh database with the schema of `migrations` (pass `&berth_db::MIGRATIONS`).
///
/// # Panics
/// When there is no Postgres: a test that needs one cannot pass without.
pub async fn database_with(migrations: &Migrator) -> TestDatabase {
    match make(migrations).await {
        Ok(database) => database,
        Err(error) => panic!("a test database could not be made: {error:#}"),
    }
}

/// A fresh database without any schema.
///
/// # Panics
/// When there is no Postgres.
pub async fn database() -> TestDatabase {
    match empty().await {
        Ok(database) => database,
        Err(error) => panic!("a test database could not be made: {error:#}"),
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // Own thread and runtime: a drop may run on a test's single-threaded runtime.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect(&format!("{server}&dbname=postgres")).await?;
                sqlx::query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")))
                    .execute(&mut admin)
                    .await?;
                anyhow::Ok(())
            })
        });
        let _ = dropped.join();
    }
}

async fn empty() -> anyhow::Result<TestDatabase> {
    clone_of("template0").await
}

async fn make(migrations: &Migrator) -> anyhow::Result<TestDatabase> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for migration in migrations.iter() {
        for byte in migration.checksum.iter() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    let template = format!("berth_template_{hash:016x}");
    let server = server().await?;
    let mut admin = PgConnection::connect(&format!("{server}&dbname=postgres")).await?;
    sqlx::query("SELECT pg_advisory_lock(7261)").execute(&mut admin).await?;
    let exists: Option<(i32,)> = sqlx::query_as("SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate")
        .bind(&template)
        .fetch_optional(&mut admin)
        .await?;
    if exists.is_none() {
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {template}"))).execute(&mut admin).await?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {template} TEMPLATE template0")))
            .execute(&mut admin)
            .await?;
        let pool = PgPool::connect(&format!("{server}&dbname={template}")).await?;
        migrations.run(&pool).await.context("the migrations")?;
        pool.close().await;
        sqlx::query(AssertSqlSafe(format!("ALTER DATABASE {template} IS_TEMPLATE true"))).execute(&mut admin).await?;
    }
    sqlx::query("SELECT pg_advisory_unlock(7261)").execute(&mut admin).await?;
    clone_of(&template).await
}

async fn clone_of(template: &str) -> anyhow::Result<TestDatabase> {
    let server = server().await?;
    let id = berth_ids::uuid_v7(&berth_clock::SystemClock, &berth_clock::SystemEntropy);
    let name = format!("berth_test_{}", id.simple());
    let mut admin = PgConnection::connect(&format!("{server}&dbname=postgres")).await?;
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")))
        .execute(&mut admin)
        .await?;
    let url = format!("{server}&dbname={name}");
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8).connect(&url).await?;
    Ok(TestDatabase { pool, url, name, server })
}

/// The shared server's URL: that of `BERTH_TEST_DATABASE_URL`, or one of our own that is started once and left running.
async fn server() -> anyhow::Result<String> {
    if let Ok(url) = std::env::var("BERTH_TEST_DATABASE_URL") {
        return Ok(if url.contains('?') { url } else { format!("{url}?") });
    }
    let uid = rustix::process::getuid().as_raw();
    let folder = PathBuf::from(format!("/var/tmp/berth-test-{uid}"));
    std::fs::create_dir_all(&folder)?;
    let lock = std::fs::File::create(folder.join("lock"))?;
    // Tests run as many processes: the first starts the server, the others find it.
    tokio::task::spawn_blocking({
        let lock = lock.try_clone()?;
        move || rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
    })
    .await??;
    let config = berth_embedded_pg::Config {
        data: folder.join("data"),
        socket: folder.join("socket"),
        binaries: None,
        user: "postgres".to_owned(),
    };
    let postgres = berth_embedded_pg::Postgres::start(config).await?;
    let socket = folder.join("socket");
    let url = format!("postgres:///?user=berth&host={}", socket.display());
    let mut admin = PgConnection::connect(&format!("{url}&dbname=postgres")).await?;
    let (fsync,): (String,) = sqlx::query_as("SHOW fsync").fetch_one(&mut admin).await?;
    if fsync == "on" {
        // Nothing here has to outlive a test, so durability is switched off. berth.conf is read before postgresql.auto.conf, which wins.
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            sqlx::query(AssertSqlSafe(format!("ALTER SYSTEM SET {setting} = off"))).execute(&mut admin).await?;
        }
        sqlx::query("SELECT pg_reload_conf()").execute(&mut admin).await?;
    }
    drop(postgres);
    drop(lock);
    Ok(url)
}
