"""The dashboard: pages of our own, under /rq, that show queues, jobs and workers.

The pages are HTML from the server, and show the same as rq-dashboard's and more; a short script
reads them again every second. rq-dashboard itself can be mounted beside them, elsewhere, and reads
the same keys. The table lists the faults of its version 0.9.0 that our pages do not have. For each
one that is about safety a test in tests/qdjobs/web also shows the fault in its blueprint.

| rq-dashboard 0.9.0 | here |
|---|---|
| unpickles data, metadata and results, and so runs code | monitoring/registries.py |
| one unreadable job or worker breaks the whole list | monitoring/registries.py |
| 500 for results and metadata that JSON lacks: bytes, sets, dates | `to_json` |
| 500 for unknown ids, numbers and registries, and without Redis | a page that says so |
| reading removes dead workers from Redis | monitoring/registries.py |
| no login; /requeue/<queue> by GET; accepts POST from any site | blueprint.py |
| requeues and deletes in several steps, running jobs too | client/control.py |
| compacting a queue loses jobs if the request dies | no such route, no button |
| its templates do not escape text (Parallels/rq-dashboard #526) | Jinja's escaping |
| no Content-Security-Policy; its templates need `'unsafe-eval'` | blueprint.py: HEADERS |
| "Loading…" for as long as Redis is away | static/dashboard.js |
| tables wider than their frame, times without a clock, workers by a random name | the templates |
"""
