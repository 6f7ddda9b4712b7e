"""Where jobs stand in Redis: the connection, the keys, and the scripts that change them.

Every script does one whole step, so that no reader ever sees half of it, and each is safe to
repeat. The keys are RQ's own; `task` in the job's hash is the one field that we add.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry
from rq.defaults import RQ_KEY_PREFIX

from libraries.job_errors import QueueUnavailableError
from libraries.settings import get_settings

# Two waits in a row, for a new connection and for the first answer, stay within two seconds.
_CONNECT_TIMEOUT = 0.6  # seconds
_ANSWER_TIMEOUT = 0.9  # seconds


def get_connection() -> Redis:
    """This process's one pool of connections, made when first asked for; it survives a fork."""
    return _connect(get_settings().redis_url)


@lru_cache(maxsize=1)
def _connect(url: str) -> Redis:
    return Redis.from_url(
        url,
        socket_connect_timeout=_CONNECT_TIMEOUT,
        socket_timeout=_ANSWER_TIMEOUT,
        # redis-py would send a command up to ten times more: an enqueue must not be
        # repeated behind its caller's back.
        retry=Retry(NoBackoff(), 0),
        # The older protocol begins without a handshake of several more waits.
        protocol=2,
        driver_info=None,
    )


@contextmanager
def reaching_redis(job_id: str | None = None) -> Iterator[Redis]:
    """The connection, with every failure of Redis turned into a QueueUnavailableError."""
    try:
        yield get_connection()
    except RedisError as error:
        reason = str(error).rstrip('.')
        raise QueueUnavailableError(
            f'Redis at {_address()} does not answer or does not accept: {reason}. '
            'Is it running, and is it the one that REDIS_URL names?',
            job_id,
        ) from error


def _address() -> str:
    url = urlsplit(get_settings().redis_url)
    return f'{url.hostname}:{url.port or 6379}' if url.hostname else url.path


class Script:
    """A Lua script, sent by its hash: one round trip once the server knows it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, connection: Redis, arguments: Sequence[Any]) -> Any:
        """Run it with `arguments` behind the key prefix, which is always the first."""
        try:
            return connection.evalsha(self._sha, 0, RQ_KEY_PREFIX, *arguments)
        except NoScriptError:
            return connection.eval(self._source, 0, RQ_KEY_PREFIX, *arguments)


COMMON = """
local rq = ARGV[1] .. ':'
local ENDED = {finished = true, failed = true, stopped = true, canceled = true}
local function key(kind, name) return rq .. kind .. ':' .. name end
local function job_key(id) return key('job', id) end
local function now() return tonumber(redis.call('TIME')[1]) end
-- Wakes every idle worker: they wait for news in this stream of one entry.
local function ring() redis.call('XADD', rq .. 'doorbell', 'MAXLEN', 1, '*', 'ring', 1) end

-- What an ended run has left behind, besides the hash and whoever depends on the job.
local function forget_run(id, origin)
  for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
    redis.call('ZREM', key(registry, origin), id)
  end
  for _, execution in ipairs(redis.call('ZRANGE', key('executions', id), 0, -1)) do
    redis.call('ZREM', key('wip', origin), id .. ':' .. execution)
    redis.call('DEL', key('execution', id .. ':' .. execution))
  end
  redis.call('DEL', key('executions', id), key('results', id))
  redis.call('PERSIST', job_key(id) .. ':dependents')
end
"""

# ARGV: prefix; in msgpack, since one argument costs the client less than thousands, the queue, the
# score ('' = now), the fields and values that all jobs share, and for each its id, description and
# delays of retries; then the data of each job. Returns for each job 0 if it was added, or the hash
# of the one that is waiting or running. All is read before anything is written: all are added, or
# none.
enqueue = Script(
    COMMON
    + """
local queue, score, shared, ids, descriptions, delays = unpack(cmsgpack.unpack(ARGV[2]))
local statuses = {}
for i, id in ipairs(ids) do
  statuses[i] = redis.call('HGET', job_key(id), 'status')
end
local reply, pushed = {}, false
for i, id in ipairs(ids) do
  local status = statuses[i]
  if status and not ENDED[status] then
    reply[i] = redis.call('HGETALL', job_key(id))
  else
    redis.call('SADD', rq .. 'queues', key('queue', queue))
    -- Into the queue first: if that key is none of ours, the script ends with nothing written.
    if score == '' then
      redis.call('RPUSH', key('queue', queue), id)
      pushed = true
    else
      redis.call('ZADD', key('scheduled', queue), score, id)
    end
    if status then
      forget_run(id, redis.call('HGET', job_key(id), 'origin') or queue)
    end
    redis.call('DEL', job_key(id), rq .. 'job::' .. id .. ':dependencies')
    redis.call('HSET', job_key(id), 'data', ARGV[2 + i], 'description', descriptions[i],
               unpack(shared))
    if delays[i] then redis.call('HSET', job_key(id), 'retry_intervals', delays[i]) end
    reply[i] = 0
  end
end
if pushed then ring() end
return reply
"""
)

STATUS_FIELDS = (
    'status', 'origin', 'created_at', 'started_at', 'ended_at', 'meta', 'task',
)  # fmt: skip

# ARGV: prefix, 1 to send results too, job ids. Returns for each job nil, or the values of
# STATUS_FIELDS, `data` if the hash does not name the task, and its outcomes, newest first. The
# value that a run returned is sent only where it is the job's result.
read_statuses = Script(
    COMMON
    + f"""
local FIELDS = {{{', '.join(repr(field) for field in STATUS_FIELDS)}}}
"""
    + """
local function outcomes(id, status)
  local reply = {}
  for n, entry in ipairs(redis.call('XREVRANGE', key('results', id), '+', '-', 'COUNT', 10)) do
    local fields = {}
    for i = 1, #entry[2], 2 do
      local wanted = n == 1 and status == 'finished' and ARGV[2] == '1'
      if entry[2][i] ~= 'return_value' or wanted then
        fields[#fields + 1] = entry[2][i]
        fields[#fields + 1] = entry[2][i + 1]
      end
    end
    reply[n] = {entry[1], fields}
  end
  return reply
end

local reply = {}
for i = 3, #ARGV do
  local values = redis.call('HMGET', job_key(ARGV[i]), unpack(FIELDS))
  reply[i - 2] = false
  if values[1] then
    local data = not values[#FIELDS] and redis.call('HGET', job_key(ARGV[i]), 'data')
    reply[i - 2] = {values, data, outcomes(ARGV[i], values[1])}
  end
end
return reply
"""
)

# ARGV: prefix, job id, moment (RQ's format), seconds to keep it. Returns nil if there is no such
# job, 'limited' if it waits under RQ's rate limit and was left alone, else the status that it had;
# 'canceled' also if it has just become that.
cancel = Script(
    COMMON
    + """
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin', 'worker_name', 'rate_limit_key')
local status, origin, worker = found[1], found[2] or '', found[3]
if not status or ENDED[status] then return status end
if status == 'started' then
  redis.call('HSET', job, 'stop_requested', 1)  -- for a worker that misses the command
  local command = cjson.encode({command = 'stop-job', job_id = id})
  redis.call('PUBLISH', key('pubsub', worker or ''), command)
  return status
end
if found[4] then return 'limited' end
redis.call('LREM', key('queue', origin), 0, id)
for _, registry in ipairs({'scheduled', 'deferred', 'ready'}) do
  redis.call('ZREM', key(registry, origin), id)
end
redis.call('HSET', job, 'status', 'canceled', 'ended_at', ARGV[3])
redis.call('EXPIRE', job, ARGV[4])
-- RQ never cleans this registry, and gives what it cancels itself no expiry: tidy as we pass.
local registry = key('canceled', origin)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', registry, 0, now(), 'LIMIT', 0, 100)) do
  if redis.call('HGET', job_key(old), 'status') == 'canceled'
     and redis.call('TTL', job_key(old)) == -1 then
    redis.call('EXPIRE', job_key(old), ARGV[4])
    redis.call('ZADD', registry, now() + ARGV[4], old)
  else
    redis.call('ZREM', registry, old)
  end
end
redis.call('ZADD', registry, now() + ARGV[4], id)
return 'canceled'
"""
)

# ARGV: prefix, job id, moment (RQ's format). Returns nil if there is no such job, else the status
# that it had, and its hash: failed, stopped and canceled jobs are waiting again, others are
# untouched, as are, with the status 'limited', those that have to wait under RQ's rate limit.
retry = Script(
    COMMON
    + """
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin', 'retry_intervals', 'rate_limit_key')
local status, origin, intervals = found[1], found[2] or '', found[3]
if not status then return nil end
if not ENDED[status] or status == 'finished' then return {status} end
if found[4] then return {'limited'} end
local decoded, delays = pcall(cjson.decode, intervals or '')
redis.call('RPUSH', key('queue', origin), id)
ring()
redis.call('SADD', rq .. 'queues', key('queue', origin))
forget_run(id, origin)
redis.call('PERSIST', job)
redis.call('HDEL', job, 'started_at', 'ended_at', 'last_heartbeat', 'worker_name', 'result',
           'exc_info', 'number_of_retries', 'worker_deaths', 'stop_requested')
redis.call('HSET', job, 'status', 'queued', 'enqueued_at', ARGV[3])
if decoded then redis.call('HSET', job, 'retries_left', #delays) end
return {status, redis.call('HGETALL', job)}
"""
)
