"""Periodic jobs: when each is due, what it runs, and what Redis knows of it. docs/periodic.md.

Any worker enqueues what is due; there is no scheduler process.
"""

from qdjobs.schedule.entries import cron, every

__all__ = ['cron', 'every']
