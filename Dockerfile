# One image for every stage; what a container does is its command: sluice run STAGE.
FROM python:3.11.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY requirements.lock /app/
RUN /opt/venv/bin/pip install --require-hashes --requirement /app/requirements.lock
COPY pyproject.toml README.md LICENSE /app/
COPY pipeline /app/pipeline
COPY detectors /app/detectors
COPY inference /app/inference
COPY dashboards /app/dashboards
# editable, so that rules, models and migrations stay beside the code that reads them
RUN /opt/venv/bin/pip install --no-deps --editable /app && /opt/venv/bin/python -m compileall -q /app

FROM python:3.11.13-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin sluice \
    && install --directory --owner sluice --group sluice --mode 0700 /keys \
    # workers of isolated tenants run under ids of their own within the group
    && install --directory --owner sluice --group sluice --mode 0770 /models /granted
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /app
USER sluice
ENTRYPOINT ["sluice"]
CMD ["--help"]
