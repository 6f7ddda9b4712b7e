# The application for web and worker, which differ by their command: docs/deployment.md.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

WORKDIR /app

# Before the code, so that a change of that installs nothing. Wheels only: there is no compiler.
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir --only-binary :all: -r requirements.txt -c constraints.txt

COPY app.py ./
COPY qdjobs qdjobs
COPY libraries libraries
COPY components components
COPY workers workers

# A number, by which Kubernetes knows that the user is not root.
RUN python -m compileall -q . \
    && groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-create-home --shell /usr/sbin/nologin app \
    && install -d -o app -g app /data /data/uploads /data/output
USER 10001:10001

# With PORT, and without HOST, gunicorn listens on all interfaces.
# MALLOC_ARENA_MAX: glibc otherwise keeps memory of every thread of the web process.
ENV PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    PORT=8000 \
    FLASK_APP=app:create_app \
    JOB_APP=app:create_app \
    JOB_HEALTH_FILE=/tmp/worker-health \
    UPLOAD_DIR=/data/uploads \
    OUTPUT_DIR=/data/output
EXPOSE 8000

# Of the web process; a worker's is in deploy/. Redis that is away is no reason to restart it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]

CMD ["gunicorn", "--no-control-socket", "--worker-class", "libraries.web_worker.WebWorker", "--workers", "2", "--threads", "64", "--max-requests", "20000", "--max-requests-jitter", "4000", "app:create_app()"]
