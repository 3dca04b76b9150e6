//! The three servers of a distributed Sluice, of one test's own.

use super::postgres::Postgres;
use super::rabbitmq::Rabbit;
use super::redis::RedisServer;
use crate::process::Env;

/// PostgreSQL, Redis and RabbitMQ, empty and running.
pub(crate) struct Trio {
    pub(crate) postgres: Postgres,
    pub(crate) redis: RedisServer,
    pub(crate) rabbit: Rabbit,
    database: String,
}

impl Trio {
    /// New ones; they start side by side.
    pub(crate) fn start() -> Self {
        std::thread::scope(|scope| {
            let rabbit = scope.spawn(Rabbit::start);
            let redis = scope.spawn(|| RedisServer::start(&[]));
            let postgres = Postgres::start(&[]);
            let database = postgres.database();
            let (redis, rabbit) = (redis.join().unwrap(), rabbit.join().unwrap());
            Self { postgres, redis, rabbit, database }
        })
    }

    /// What a process of the program needs to find them.
    pub(crate) fn env(&self) -> Env {
        let rabbit = self.rabbit.url("v0");
        vec![("DATABASE_URL", self.database.clone()), ("REDIS_URL", self.redis.url()), ("RABBITMQ_URL", rabbit)]
    }

    /// What psql says to this.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.postgres.psql(self.database_name(), sql)
    }

    /// The name of the database.
    pub(crate) fn database_name(&self) -> &str {
        self.database.rsplit('/').next().unwrap()
    }
}
