# The service on a CPU: ONNX Runtime, no torch, the bundled model. Needs no root, no writable root file system and no
# capability; /data is the one place it may write to that outlives the container.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
COPY requirements/cpu.lock /tmp/cpu.lock
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --requirement /tmp/cpu.lock
WORKDIR /opt/pru
COPY model model
COPY app app
# Compiled here, since a read-only file system keeps no bytecode; by content, since times do not travel with images.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash app model

FROM ${BASE}
LABEL org.opencontainers.image.title="PRU" \
      org.opencontainers.image.description="Next-word prediction and text scoring with a Pyramidal Recurrent Unit" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 pru \
    && useradd --uid 10001 --gid pru --no-create-home --home-dir /data --shell /usr/sbin/nologin pru \
    && install -d -o pru -g pru /data
COPY --from=build /opt/venv /opt/venv
COPY bundles/wikitext-2 /opt/pru/bundles/wikitext-2
COPY --from=build /opt/pru /opt/pru
WORKDIR /opt/pru
# ONNX Runtime would report its use to its makers.
ENV ORT_DISABLE_TELEMETRY=1 \
    PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PRU_HOST=0.0.0.0 \
    PRU_PORT=8000 \
    PRU_BUNDLE=/opt/pru/bundles/wikitext-2
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PRU_PORT']), timeout=2); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
# Without arguments the module serves; `docker run --rm pru predict "it was the best of"` asks it in the terminal.
ENTRYPOINT ["python", "-m", "app"]
