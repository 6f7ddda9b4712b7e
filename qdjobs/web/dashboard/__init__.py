"""rq-dashboard at /rq: its pages, scripts and styles as PyPI has them, over our own readers.

Its Python (0.9.0) is not run, nor imported: qdjobs/web/dashboard/views.py answers at the addresses
that its scripts ask. The faults that are the reason, and what stands in for each; every one has a
test in tests/qdjobs/web/test_dashboard*.py, which shows it in the bare blueprint too. Once the
first eight are fixed upstream, views.py can give way to that blueprint.

| rq-dashboard 0.9.0 | here |
|---|---|
| unpickles data, metadata and results with whatever code they name | monitoring/registries.py |
| one job or worker that it cannot read takes the whole list down | monitoring/registries.py |
| fails with 500 at results and metadata without a JSON form: bytes, sets, dates | `to_json` |
| fails with 500 at unknown ids, numbers and registries, and when Redis is away | our errors |
| reading removes workers from Redis that have died | monitoring/registries.py |
| lets whoever comes in; /requeue/<queue> by GET; POST from any site | `_guard` |
| requeues and deletes in several steps, running jobs too | `retry_job`, `delete_job` |
| compacting a queue loses jobs if the request dies | no such route, no button |
| its templates write text as markup (Parallels/rq-dashboard #526) | pages.py: REWRITES |
| a queue's name, from the address, stands in a script as it is | pages.py: REWRITES |
| no Content-Security-Policy | pages.py: `render` |
"""
