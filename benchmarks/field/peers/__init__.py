"""One module for each peer, imported in the peer's own environment.

Each has TITLE; PACKAGE, whose version is reported; COMMAND, which starts one worker process that
runs one job at a time; NOTE, when a job comes back that a killed worker held; `enqueue(task,
*arguments)`, which may be a coroutine; and, if its client needs one, the async context manager
`connected()`.
"""
