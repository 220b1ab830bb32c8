-- Three roles for a database of studies, each with no more rights than its work needs:
--
--   owner   makes the tables and brings them up to date: `init` of the first study, `upgrade`
--   worker  reads and writes rows, and makes, changes and drops no table: `worker`, `run`, `confirm`, `stop`, `delete`
--   reader  reads: `status`, `trials`, `report`, `verify`, `dashboard`
--
-- An administrator runs it with psql 15 or later, before the first study or after it, and again at will:
--
--   psql --dbname=studies --file=deploy/postgres/roles.sql
--
-- Other names: --set owner=NAME --set worker=NAME --set reader=NAME. Where studies are there already, `owner` must be
-- who owns their tables. A password is taken from OWNER_PASSWORD, WORKER_PASSWORD or READER_PASSWORD in the environment,
-- as a command line can be read by others; a role without one is given one by \password NAME.
-- The database should hold nothing but studies: its schema `public` is closed to all other roles' tables.
\set ON_ERROR_STOP on
\set QUIET on
\if :{?owner} \else \set owner fmnist_owner \endif
\if :{?worker} \else \set worker fmnist_worker \endif
\if :{?reader} \else \set reader fmnist_reader \endif
\getenv owner_password OWNER_PASSWORD
\getenv worker_password WORKER_PASSWORD
\getenv reader_password READER_PASSWORD

BEGIN;
SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY[:'owner', :'worker', :'reader']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
\if :{?owner_password}
ALTER ROLE :"owner" PASSWORD :'owner_password';
\endif
\if :{?worker_password}
ALTER ROLE :"worker" PASSWORD :'worker_password';
\endif
\if :{?reader_password}
ALTER ROLE :"reader" PASSWORD :'reader_password';
\endif
-- What enforces that it cannot write are the rights below; this one says so in better words.
ALTER ROLE :"reader" SET default_transaction_read_only = on;

REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"owner", :"worker", :"reader";
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"worker", :"reader";

-- An administrator who is no superuser acts for the owner as a member of that role.
SELECT format('GRANT %I TO CURRENT_USER', :'owner') FROM pg_roles
WHERE rolname = CURRENT_USER AND NOT rolsuper AND rolname <> :'owner' \gexec
SET ROLE :"owner";
-- Tables that are there, and those that `init` and `upgrade` will make.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"worker";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"worker";
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"reader";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"worker";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO :"worker";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO :"reader";
RESET ROLE;
COMMIT;
