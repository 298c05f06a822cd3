# Two images, each with what its processes need; what a container does is its command: sluice run STAGE.
#   docker build --target stage .     every stage but generate, and the operator's commands: no torch
#   docker build --target worker .    generate: torch as well
# Dependencies lie in a layer of their own, so that a change of the code ships megabytes.
FROM python:3.11.13-slim-bookworm AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_PYTHON=/opt/venv/bin/python
WORKDIR /build
COPY requirements.lock pyproject.toml ./
# what builds and installs is of the versions and hashes of the lock as well
RUN awk '/^[^ ]/ {on = /^(uv|setuptools)==/} on' requirements.lock > tools.lock \
    && pip install --require-hashes --requirement tools.lock \
    && python -m venv --without-pip /opt/venv

FROM tools AS stage-packages
RUN uv pip install --require-hashes --constraint requirements.lock --requirement pyproject.toml --extra stages

FROM tools AS worker-packages
RUN uv pip install --require-hashes --constraint requirements.lock --requirement pyproject.toml \
    --extra stages --extra engine

FROM tools AS code
COPY README.md LICENSE ./
COPY pipeline pipeline
COPY detectors detectors
COPY inference inference
COPY dashboards dashboards
RUN uv build --wheel --no-build-isolation --python /usr/local/bin/python --out-dir /dist . \
    && uv pip install --no-deps --no-index --target /app /dist/*.whl

FROM python:3.11.13-slim-bookworm AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin sluice \
    && install --directory --owner sluice --group sluice --mode 0700 /keys \
    # workers of isolated tenants run under ids of their own within the group
    && install --directory --owner sluice --group sluice --mode 0770 /models /granted \
    # a volume of secrets is first its maker's; the group reads
    && for user in broker operator gateway admit generate seal watch notify; do \
        install --directory --owner sluice --group sluice --mode 0750 /secrets "/secrets/$user"; done
ENV PATH=/app/bin:/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /app
USER 10001
ENTRYPOINT ["sluice"]
CMD ["--help"]

FROM runtime AS worker
COPY --from=worker-packages /opt/venv /opt/venv
COPY --from=code /app /app

FROM runtime AS stage
COPY --from=stage-packages /opt/venv /opt/venv
COPY --from=code /app /app
