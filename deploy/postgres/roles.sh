#!/bin/bash
# Run once by the Postgres image on an empty volume: the roles of workers and dashboard, beside that of POSTGRES_USER,
# who owns the tables. On a volume that is there already, by hand: docker compose exec postgres bash /deploy/roles.sh
set -euo pipefail
folder="${SECRETS_FOLDER:-/run/secrets}"
WORKER_PASSWORD="$(cat "$folder/worker_password")"
READER_PASSWORD="$(cat "$folder/reader_password")"
export WORKER_PASSWORD READER_PASSWORD
psql --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file "${ROLES:-/deploy/roles.sql}" \
  --set owner="$POSTGRES_USER" --set worker=worker --set reader=reader
