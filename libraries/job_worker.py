"""The worker class, under the name that existing Procfiles and commands use."""

from qdjobs import JobWorker

__all__ = ['JobWorker']
