# Debian's Postgres behind the settings of the official image, which cannot be fetched where no registry can be reached.
ARG BASE
FROM ${BASE}
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*
COPY postgres_entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["bash", "/usr/local/bin/docker-entrypoint.sh"]
