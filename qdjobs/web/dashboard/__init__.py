"""The dashboard: the pages, scripts and styles of rq-dashboard, with our own views and readers.

The Python of rq-dashboard (0.9.0) is not imported: views.py serves the URLs that its scripts
request. The table lists the faults that are the reason, and what replaces each. For every one a
test in tests/qdjobs/web/test_dashboard*.py also shows the fault in rq-dashboard's own blueprint.
Once the first eight are fixed upstream, that blueprint can replace views.py.

| rq-dashboard 0.9.0 | here |
|---|---|
| unpickles data, metadata and results, and so runs code | monitoring/registries.py |
| one unreadable job or worker breaks the whole list | monitoring/registries.py |
| 500 for results and metadata that JSON lacks: bytes, sets, dates | `to_json` |
| 500 for unknown ids, numbers and registries, and without Redis | our errors |
| reading removes dead workers from Redis | monitoring/registries.py |
| no login; /requeue/<queue> by GET; accepts POST from any site | `_guard` |
| requeues and deletes in several steps, running jobs too | `retry_job`, `delete_job` |
| compacting a queue loses jobs if the request dies | no such route, no button |
| its templates do not escape text (Parallels/rq-dashboard #526) | pages.py: REWRITES |
| the name of a queue in the URL is not escaped in a script | pages.py: REWRITES |
| no Content-Security-Policy | pages.py: `render` |
"""
