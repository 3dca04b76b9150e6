//! The schema: brought up to date by one process at a time, and looked at by all others.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{Database, Lane, failure};
use crate::remote::Unusable;

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Whoever migrates holds this advisory lock: the letters of "Sluice".
const LOCK: i64 = 0x536c_7569_6365;
/// How long a migration may take, waiting for another process's included.
const MIGRATE_TIME_MAX: Duration = Duration::from_secs(600);

impl Database {
    /// Brings the schema up to date; the second time changes nothing, and so do other processes that do it at the same
    /// time. A newer schema is left as it is and refused.
    pub async fn migrate(&self) -> Result<(), Unusable> {
        // It is closed in the end, and with it goes the lock, however this ends.
        let mut client = Object::take(self.object(Lane::Write).await?);
        match timeout(MIGRATE_TIME_MAX, self.migrate_locked(&mut client)).await {
            Ok(result) => result,
            Err(_) => Err(Unusable::NotYet(format!("{}: the migration took too long", self.name()))),
        }
    }

    async fn migrate_locked(&self, client: &mut Client) -> Result<(), Unusable> {
        let sql = format!(
            "/* lock for migration */ set statement_timeout = 0; set lock_timeout = 0; select pg_advisory_lock({LOCK})"
        );
        client.batch_execute(&sql).await.map_err(|error| failure::unusable(self.name(), &error))?;
        let (found, known) = (self.version(client).await?, known());
        if found < known {
            let run = embedded::migrations::runner().set_grouped(true).run_async(client).await;
            run.map_err(|error| self.failed(&error))?;
            tracing::info!(from = found, to = known, "migrated the database");
        }
        self.judge(found.max(known), known)
    }

    fn failed(&self, error: &refinery::Error) -> Unusable {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
                return failure::unusable(self.name(), error);
            }
            cause = error.source();
        }
        Unusable::Wrong(format!("cannot migrate {}: {error}", self.name()))
    }

    /// Whether the schema is the one that this program needs; nothing is changed.
    pub async fn check_schema(&self) -> Result<(), Unusable> {
        let client = self.object(Lane::Write).await?;
        let found = timeout(crate::model::limits::LEDGER_TRIP_TIME_MAX, self.version(&client)).await;
        let found = found.map_err(|_| Unusable::NotYet(format!("{} does not answer", self.name())))??;
        self.judge(found, known())
    }

    fn judge(&self, found: i32, known: i32) -> Result<(), Unusable> {
        let name = self.name();
        if found > known {
            return Err(Unusable::Wrong(format!(
                "{name} has schema version {found}, this Sluice knows up to {known}. Nothing was changed. Start the newer \
                 Sluice that wrote it"
            )));
        }
        if found < known {
            return Err(Unusable::Wrong(format!(
                "{name} has schema version {found}, this Sluice needs {known}. Run `sluice migrate` first"
            )));
        }
        Ok(())
    }

    /// The schema's version; 0 in an empty database.
    async fn version(&self, client: &Client) -> Result<i32, Unusable> {
        let refused = |error| failure::unusable(self.name(), &error);
        let sql = "/* is there a schema */ select to_regclass('refinery_schema_history') is not null";
        if !client.query_one(sql, &[]).await.map_err(refused)?.get::<_, bool>(0) {
            return Ok(0);
        }
        let sql = "/* schema version */ select coalesce(max(version), 0) from refinery_schema_history";
        Ok(client.query_one(sql, &[]).await.map_err(refused)?.get(0))
    }
}

fn known() -> i32 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0)
}
