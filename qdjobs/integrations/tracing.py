"""Read from a job what the integrations need. Anyone may have written its record."""

from datetime import UTC, datetime

from qdjobs.progress import CurrentJob

FLUSH_TIMEOUT = 1.5  # seconds; the parent of a work horse waits two for its end


def carried(job: CurrentJob, name: str) -> dict[str, str]:
    """Return the headers that travel in the metadata of a job; without any, an empty dict."""
    headers = job.meta.get(name) if isinstance(job.meta, dict) else None
    if not isinstance(headers, dict):
        return {}
    return {key: value for key, value in headers.items() if type(key) is type(value) is str}


def queue_latency(job: CurrentJob) -> float:
    """Return the seconds since a job was put into its queue."""
    since = job.enqueued_at or job.created_at
    if since.tzinfo is None:  # other tools can write it so
        since = since.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - since).total_seconds())  # clocks differ
