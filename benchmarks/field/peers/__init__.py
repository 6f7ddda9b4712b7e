"""One module for each peer, imported in the peer's own environment.

Each has TITLE, with a place for the version of PACKAGE; COMMAND, which starts one worker process;
NOTE, when a job comes back that a killed worker held; `enqueue(task, *arguments)`, which may be a
coroutine; and, if its client needs one, the async context manager `connected()`.
"""
