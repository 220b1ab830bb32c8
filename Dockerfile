# syntax=docker/dockerfile:1
# The locked dependencies in a virtual environment, made in one stage and copied to another: no build tool, no root.
FROM python:3.12-slim-bookworm AS build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY deploy/requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY fmnist_optuna /opt/venv/lib/python3.12/site-packages/fmnist_optuna

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 10001 app && install --directory --owner=app /data /app
COPY --from=build /opt/venv /opt/venv
COPY studies/*.toml /app/studies/
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# Weights go to studies/artifacts under the current folder, on the volume that all roles share.
WORKDIR /data
USER 10001
ENTRYPOINT ["python", "-m", "fmnist_optuna"]
CMD ["--help"]
