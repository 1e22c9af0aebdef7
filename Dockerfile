# syntax=docker/dockerfile:1
# Any base with python3 (3.11 or later), venv and CA certificates will do; both stages use the same, as a virtual
# environment refers to the interpreter that made it.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY requirements.lock ./
# A mirror or a CA of your own: --secret id=pip,src=pip.conf; it is there for this line and in no layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/venv/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY handlers handlers
# The build backend was in the lock and has done its work; pip has nothing to do in a running service.
RUN /opt/venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --no-index . \
 && /opt/venv/bin/python -m pip uninstall --quiet --yes hatchling editables pathspec pluggy tomlkit trove-classifiers \
 && /opt/venv/bin/python -m pip check \
 && /opt/venv/bin/python -m pip uninstall --quiet --yes pip

FROM ${BASE}
LABEL org.opencontainers.image.title="Usher" \
      org.opencontainers.image.description="The hook runner for identity events" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
# The embedded log and the outbox are relative to the working directory: one volume keeps all there is to keep.
RUN mkdir /data && chown 10001:10001 /data
WORKDIR /data
VOLUME /data
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    USHER_HTTP=0.0.0.0:8080
EXPOSE 8080
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import http.client, os, sys; \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ['USHER_HTTP'].rpartition(':')[2]), timeout=4); \
server.request('GET', '/healthz'); \
sys.exit(server.getresponse().status != 200)"]
ENTRYPOINT ["usher"]
CMD ["run"]
