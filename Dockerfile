# syntax=docker/dockerfile:1
# The wheel and its locked dependencies in a virtual environment: made in two stages, copied into a third, which has
# no build tool, no pip and no root. BASE is any image with Python 3.11 to 3.13, its venv module and glibc.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS dependencies
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/venv
ENV PATH=/opt/tools/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY deploy/requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv/bin/python install --require-hashes -r requirements.lock

FROM dependencies AS wheel
COPY deploy/build.lock ./
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY fmnist_optuna fmnist_optuna
# Apart from its dependencies: a changed source then changes a layer of a megabyte, not that of TensorFlow.
# What lies in /study comes last on Python's path: a user's module is found there, and shadows nobody else's.
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --prefix /wheel dist/*.whl \
    && echo /study > "$(echo /wheel/lib/python*/site-packages)/study.pth"

FROM ${BASE}
RUN useradd --uid 10001 --home-dir /data --no-create-home app \
    && install --directory --owner=app --group=app /data \
    && install --directory /study
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=wheel /wheel /opt/venv
COPY studies/*.toml /study/
# The folder to mount a volume on is the current one: with Postgres, weights go to studies/artifacts under it.
# All else that is written goes to /tmp, for whatever user the container runs as.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp XDG_CACHE_HOME=/data/cache
WORKDIR /data
USER 10001
ENTRYPOINT ["fmnist-optuna"]
CMD ["--help"]
