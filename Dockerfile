# The service on a CPU: ONNX Runtime, no torch, the bundled model. Needs no root, no writable root file system and no
# capability; /data is the one place it may write to that outlives the container.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
COPY requirements/cpu.lock /tmp/cpu.lock
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
        --requirement /tmp/cpu.lock
# Serving reads none of this, a third of what was installed:
# - ONNX Runtime's library for C programs: Python's module has all of it inside;
# - its tools to convert and quantize models, which need packages that are not here;
# - the packages' own tests;
# - what only compilers and type checkers read, and NumPy's tools to call compilers;
# - ReDoc: the service shows its documentation with Swagger UI alone.
# - what colours program text, of which the terminal shows none.
RUN cd /opt/venv/lib/python3.*/site-packages \
    && rm -rf onnxruntime/capi/libonnxruntime.so.* onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
        numpy/distutils numpy/f2py fastapi_offline/static/redoc.standalone.js pygments/lexers/[a-z]*.py \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && find . -type f \( -name '*.a' -o -name '*.[ch]' -o -name '*.px[di]' -o -name '*.py[ix]' \) -delete
WORKDIR /opt/pru
# The command `pru`, which runs what is in this folder. What builds it is of locked versions too, and stays in this stage.
COPY requirements/build.lock /tmp/build.lock
COPY pyproject.toml README.md LICENSE ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --target /tmp/build --requirement /tmp/build.lock \
    && PYTHONPATH=/tmp/build python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile \
        --disable-pip-version-check --no-build-isolation --no-deps --editable .
COPY model model
COPY app app
COPY pru pru
# Compiled here, since a read-only file system keeps no bytecode: the project, and of the packages the modules that it
# imports to serve and to answer in the terminal, one in three. By content, since times do not travel with images.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash app model pru \
    && /opt/venv/bin/python -B -c "import compileall, py_compile, sys; \
        import app.cli, app.engines.onnx, app.score_formats, app.server, app.terminal, app.tracing.middleware, pru.cli; \
        by_content = py_compile.PycInvalidationMode.UNCHECKED_HASH; \
        files = [str(getattr(module, '__file__', None)) for module in list(sys.modules.values())]; \
        packages = [file for file in files if file.startswith('/opt/venv/')]; \
        [compileall.compile_file(file, quiet=1, invalidation_mode=by_content) for file in packages]"

FROM ${BASE}
LABEL org.opencontainers.image.title="PRU" \
      org.opencontainers.image.description="Next-word prediction and text scoring with a Pyramidal Recurrent Unit" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 pru \
    && useradd --uid 10001 --gid pru --no-log-init --no-create-home --home-dir /data --shell /usr/sbin/nologin pru \
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
    PRU_BUNDLE=/opt/pru/bundles/wikitext-2 \
    PRU_SESSION_STORE=sqlite:////data/sessions.db
USER 10001:10001
# No image without an answer: a package that lacks something it needs fails here.
RUN pru predict "it was the best of"
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PRU_PORT']), timeout=2); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
# Without arguments it serves, on all addresses of the container: to whoever has a key of PRU_KEYS or of the file that
# PRU_KEYS_FILE names, or to everybody where PRU_ALLOW_ANONYMOUS=true says so.
# `docker run --rm pru predict "it was the best of"` asks it in the terminal.
ENTRYPOINT ["pru"]
CMD ["serve"]
