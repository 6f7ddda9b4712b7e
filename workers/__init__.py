"""The tasks: plain, typed functions that raise on failure.

They import `libraries`, and from `qdjobs` only what a task uses while it runs.
"""
