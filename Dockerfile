# An image that runs studies, alone or as head and workers of a Ray cluster (docs/cluster.md, docs/slurm-and-jobs.md):
#   docker build --tag unlearning-study .
#   docker run --rm --gpus all --shm-size 8g --volume /shared:/shared unlearning-study run smoke --study-dir /shared/runs/smoke
# torch's wheels bring CUDA along, so the host needs the driver and the container toolkit of NVIDIA and nothing else.
FROM python:3.12-slim

# git: a study notes its revision. wget: KubeRay asks with it whether a node is alive.
RUN apt-get -qq update && apt-get -qq install --yes --no-install-recommends git wget && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --requirement requirements.lock
COPY . .
RUN python -m pip install --no-cache-dir --no-deps --editable . && git config --system --add safe.directory /app

ENV RAY_AUTH_MODE=token RAY_memory_monitor_refresh_ms=0
ENTRYPOINT ["mus"]
CMD ["--help"]
