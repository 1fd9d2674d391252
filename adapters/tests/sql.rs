//! The SQL store: the conformance suites on both databases, the migration, and what only a real server can show.
//!
//! SQLite needs nothing. PostgreSQL is reached through `TEST_DATABASE_URL`, whose user must be allowed to create
//! databases: every test makes one of its own and drops it.

#[path = "sql/adoption.rs"]
mod adoption;
#[path = "sql/audit.rs"]
mod auditing;
#[path = "sql/connections.rs"]
mod connections;
#[path = "sql/database.rs"]
mod database;
#[path = "sql/exclusive.rs"]
mod exclusive;
#[path = "sql/histories.rs"]
mod histories;
#[path = "sql/keyed.rs"]
mod keyed;
#[path = "sql/migration.rs"]
mod migrating;
#[path = "sql/outage.rs"]
mod outage;
#[path = "sql/plans.rs"]
mod plans;
#[path = "sql/refusal.rs"]
mod refusal;

use database::Subject;

ports::store_conformance!(sqlite_store, Subject::sqlite().await);
ports::idempotency_conformance!(sqlite_idempotency, Subject::sqlite().await);
ports::registry_conformance!(sqlite_registry, Subject::sqlite().await);
ports::audit_conformance!(sqlite_audit, Subject::sqlite().await);
ports::survey_conformance!(sqlite_survey, Subject::sqlite().await);
ports::catalog_conformance!(sqlite_catalog, Subject::sqlite().await);
ports::store_conformance!(
    #[ignore = "needs PostgreSQL: run cargo xtask test"]
    postgres_store,
    Subject::postgres().await
);
ports::idempotency_conformance!(
    #[ignore = "needs PostgreSQL: run cargo xtask test"]
    postgres_idempotency,
    Subject::postgres().await
);
ports::registry_conformance!(
    #[ignore = "needs PostgreSQL: run cargo xtask test"]
    postgres_registry,
    Subject::postgres().await
);
ports::audit_conformance!(
    #[ignore = "needs PostgreSQL: run cargo xtask test"]
    postgres_audit,
    Subject::postgres().await
);
ports::catalog_conformance!(
    #[ignore = "needs PostgreSQL: run cargo xtask test"]
    postgres_catalog,
    Subject::postgres().await
);

ports::survey_conformance!(
    #[ignore = "needs PostgreSQL: run cargo xtask test"]
    postgres_survey,
    Subject::postgres().await
);
