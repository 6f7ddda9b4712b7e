"""Name the counters that the scripts increase when they change jobs. For Python and Lua.

The hash `metrics` has these fields, whose values are whole numbers:

- `<outcome>|<queue>|<task>|<bound>`: jobs, or runs of jobs, by OUTCOMES. For runs whose time is
  known, `bound` is the smallest of BUCKETS that is not below it, or `inf`: one command counts both.
- `waiting|<task>|<bound>`: runs by the time that their job had waited.
- `<waiting or running>|<task>|sum`: microseconds of all runs.

The set `metrics:labels` has the pairs `<queue>|<task>` that are counted under their own names; the
others are `other`.
"""

OUTCOMES = {
    'enqueued': 'Jobs that were enqueued or requeued by qdjobs, delayed ones included.',
    'finished': 'Runs that have succeeded.',
    'failed': 'Jobs that have failed for good.',
    'retried': 'Runs that have failed, after which the job runs again.',
    'lost': 'Runs whose worker has died, after which the job runs again or fails.',
    'stopped': 'Jobs that were stopped while they ran.',
    'canceled': 'Jobs that were cancelled while they waited.',
}

TIMES = {
    'waiting': 'Seconds from when a job was enqueued or due until its task was called.',
    'running': 'Seconds that a run of a task took.',
}

BUCKETS = ('0.005', '0.025', '0.1', '0.5', '1', '2.5', '5', '15', '60', '300', '900', '3600')

LUA_BUCKETS = f'local BUCKETS = {{{", ".join(BUCKETS)}}}\n'
