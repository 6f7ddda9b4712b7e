"""The worker class, under the name that Procfiles and shells have."""

from qdjobs import JobWorker

__all__ = ['JobWorker']
