"""A table of periodic jobs, as JOB_SCHEDULE names it."""

from qdjobs.schedule import cron, every

PERIODIC = {
    'note': every('1s').run('tests.support.periodic_apps.note'),
    'yearly': cron('0 0 1 1 *').run('tests.support.tasks.add', 1, b=3),
}
