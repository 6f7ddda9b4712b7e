"""Who runs a job, and until when: the scripts that take, renew, record, give back and recover.

A job that runs is leased: `leases` holds its execution with the moment until which its worker is
believed. Whoever holds the lease may record an outcome; once it is past, a living worker puts the
job back. RQ's own registry of started jobs has the execution too, without an expiry, so that no
tool of RQ's takes it for abandoned.
"""

import logging
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zlib import compress

from redis import Redis
from redis.client import Pipeline
from rq.defaults import RQ_KEY_PREFIX
from rq.utils import utcformat

from libraries.job_store import COMMON, Script

log = logging.getLogger(__name__)

DOORBELL = f'{RQ_KEY_PREFIX}:doorbell'
PENDING_DEPENDENTS = f'{RQ_KEY_PREFIX}:pending-dependents'

_COMMON = (
    COMMON
    + """
local function clock() local t = redis.call('TIME') return t[1] + t[2] / 1000000 end

-- Take an execution out of everything but its job.
local function forget_execution(id, execution, origin, worker)
  local member = id .. ':' .. execution
  redis.call('ZREM', rq .. 'leases', member)
  redis.call('ZREM', key('wip', origin), member)
  redis.call('DEL', key('executions', id), key('execution', member))
  redis.call('SREM', key('worker', worker .. ':executions'), member)
end

local function put_back(id, queue, moment)
  redis.call('HDEL', job_key(id), 'started_at', 'worker_name', 'last_heartbeat', 'stop_requested')
  redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', moment)
  redis.call('PERSIST', job_key(id))
  redis.call('SADD', rq .. 'queues', key('queue', queue))
  redis.call('LPUSH', key('queue', queue), id)
  ring()
end
"""
)

# ARGV: prefix, worker, execution, lease (s), moment (RQ's format), timestamp, 1 if an answer for
# this execution was lost, 1 to look for jobs whose time has come, queues…
# Returns {'job', queue, id, hash} or {'idle' or 'suspended', last ring of the doorbell}. This runs
# for every job: what it need not ask each time, its caller tells.
_take = Script(
    _COMMON
    + """
local worker, execution, lease, moment, timestamp, again, due = unpack(ARGV, 2, 8)
local mine = key('worker', worker .. ':executions')

if again == '1' then
  for _, member in ipairs(redis.call('SMEMBERS', mine)) do
    local id, taken = string.match(member, '^(.*):(.*)$')
    if taken == execution and redis.call('ZSCORE', rq .. 'leases', member) then
      local origin = redis.call('HGET', job_key(id), 'origin')
      return {'job', origin, id, redis.call('HGETALL', job_key(id))}
    end
  end
end

local function rings()
  local last = redis.call('XREVRANGE', rq .. 'doorbell', '+', '-', 'COUNT', 1)
  return last[1] and last[1][1] or '0-0'
end
if redis.call('EXISTS', rq .. 'suspended') == 1 then return {'suspended', rings()} end

-- A job whose time has come; those under RQ's rate limit wait for their slot elsewhere.
local function enqueue_due(queue)
  local scheduled = key('scheduled', queue)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, 0, now(), 'LIMIT', 0, 100)) do
    local job = redis.call('HMGET', job_key(id), 'status', 'rate_limit_key', 'enqueue_at_front',
                           'enqueue_at_front_on_retry', 'ended_at', 'ttl')
    if not job[2] then
      redis.call('ZREM', scheduled, id)
      if job[1] and not ENDED[job[1]] and job[1] ~= 'started' then
        local again = job[4] == '1' and job[5] and job[5] ~= ''
        local push = (job[3] == '1' or again) and 'LPUSH' or 'RPUSH'
        redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', moment)
        redis.call('PERSIST', job_key(id))
        if job[6] then redis.call('EXPIRE', job_key(id), job[6]) end
        redis.call(push, key('queue', queue), id)
        ring()
      end
    end
  end
end

local function runs(id)
  local executions = redis.pcall('ZRANGE', key('executions', id), 0, -1)
  if executions.err then return false end
  for _, other in ipairs(executions) do
    if redis.call('ZSCORE', rq .. 'leases', id .. ':' .. other) then return true end
  end
  return false
end

-- Start the job whose id stood in the queue, unless it has ended, runs, or is no job.
local function start(queue, id)
  local found = redis.pcall('HMGET', job_key(id), 'status', 'origin', 'data')
  if found.err or not (found[1] or found[3]) or ENDED[found[1]] then return nil end
  if not string.match(id, '^[%w_-]+$') then  -- which RQ does not allow
    redis.call('HSET', job_key(id), 'status', 'failed')
    return nil
  end
  if found[1] == 'started' and runs(id) then return nil end
  local member = id .. ':' .. execution
  local origin = found[2]
  if not origin or origin == '' then origin = queue end
  redis.call('HSET', job_key(id), 'status', 'started', 'started_at', moment, 'last_heartbeat',
             moment, 'worker_name', worker, 'origin', origin, 'ended_at', '',
             'stop_requested', '')
  redis.call('PERSIST', job_key(id))
  redis.call('ZADD', rq .. 'leases', clock() + lease, member)
  redis.call('ZADD', key('wip', origin), '+inf', member)
  redis.call('HSET', key('execution', member), 'id', execution, 'job_id', id, 'created_at',
             timestamp, 'last_heartbeat', timestamp, 'worker_name', worker, 'origin', origin)
  redis.call('DEL', key('executions', id))
  redis.call('ZADD', key('executions', id), '+inf', execution)
  redis.call('SADD', mine, member)
  return {'job', queue, id, redis.call('HGETALL', job_key(id))}
end

if due == '1' then
  for i = 9, #ARGV do enqueue_due(ARGV[i]) end
end
for i = 9, #ARGV do
  local id = redis.call('LPOP', key('queue', ARGV[i]))
  while id do
    local job = start(ARGV[i], id)
    if job then return job end
    id = redis.call('LPOP', key('queue', ARGV[i]))
  end
end
return {'idle', rings()}
"""
)

# ARGV: prefix, job id, execution, lease (s), moment, timestamp. Returns 'held', 'stop' if the job
# is to be stopped, or 'lost'.
_renew = Script(
    _COMMON
    + """
local id, execution, lease, moment, timestamp = unpack(ARGV, 2, 6)
local member = id .. ':' .. execution
local expiry = redis.call('ZSCORE', rq .. 'leases', member)
if not expiry or tonumber(expiry) < clock() then return 'lost' end
redis.call('ZADD', rq .. 'leases', clock() + lease, member)
redis.call('HSET', key('execution', member), 'last_heartbeat', timestamp)
if redis.call('EXISTS', job_key(id)) == 0 then return 'held' end  -- deleted under its worker
redis.call('HSET', job_key(id), 'last_heartbeat', moment)
return redis.call('HGET', job_key(id), 'stop_requested') == '1' and 'stop' or 'held'
"""
)

# ARGV: prefix, job id, execution, worker, origin, then commands: for each the number of its words,
# and the words. Runs them all if the lease still holds. Returns 'done', 'dependents' if other jobs
# wait for this one, or 'lost'.
_record = Script(
    _COMMON
    + """
local id, execution, worker, origin = unpack(ARGV, 2, 5)
local expiry = redis.call('ZSCORE', rq .. 'leases', id .. ':' .. execution)
if not expiry or tonumber(expiry) < clock() then return 'lost' end
forget_execution(id, execution, origin, worker)
-- Deleted or cancelled while it ran: what others have been told stands.
if redis.call('HGET', job_key(id), 'status') ~= 'started' then return 'lost' end
local i = 6
while i <= #ARGV do
  local words = tonumber(ARGV[i])
  redis.pcall(unpack(ARGV, i + 1, i + words))  -- one that fails must not keep the others back
  i = i + words + 1
end
local status = redis.call('HGET', job_key(id), 'status')
if status == 'queued' then ring() end
if ENDED[status] and redis.call('EXISTS', job_key(id) .. ':dependents') == 1 then
  redis.call('ZADD', rq .. 'pending-dependents', now(), id)
  return 'dependents'
end
return 'done'
"""
)

# ARGV: prefix, job id, execution, worker, origin, moment, started and ended (timestamps), packed
# result or '', seconds to keep it (negative: for ever). What `_record` would do for a job that has
# finished, without the cost of spelling it out: this is how nearly every job ends.
_finish = Script(
    _COMMON
    + """
local id, execution, worker, origin, moment, started, ended, result, ttl = unpack(ARGV, 2, 10)
local expiry, time = redis.call('ZSCORE', rq .. 'leases', id .. ':' .. execution), clock()
if not expiry or tonumber(expiry) < time then return 'lost' end
forget_execution(id, execution, origin, worker)
if redis.call('HGET', job_key(id), 'status') ~= 'started' then return 'lost' end
redis.call('HSET', job_key(id), 'status', 'finished', 'ended_at', moment)
local outcome = {'type', 1, 'worker_name', worker, 'execution_id', execution,
                 'execution_started_at', started, 'execution_ended_at', ended}
if result ~= '' then
  outcome[#outcome + 1] = 'return_value'
  outcome[#outcome + 1] = result
end
redis.pcall('XADD', key('results', id), 'MAXLEN', '~', 10, '*', unpack(outcome))
ttl = tonumber(ttl)
if ttl >= 0 then
  redis.call('EXPIRE', job_key(id), ttl)
  redis.call('EXPIRE', key('results', id), ttl)
end
redis.call('ZADD', key('finished', origin), ttl >= 0 and time + ttl or '+inf', id)
redis.call('HINCRBY', key('worker', worker), 'successful_job_count', 1)
redis.call('HINCRBYFLOAT', key('worker', worker), 'total_working_time', ended - started)
if redis.call('EXISTS', job_key(id) .. ':dependents') == 1 then
  redis.call('ZADD', rq .. 'pending-dependents', now(), id)
  return 'dependents'
end
return 'done'
"""
)

# ARGV: prefix, job id, execution, worker, origin, moment. Puts a job back to the front as if it
# had never been taken. Returns 1, or 0 if the lease was lost.
_give_back = Script(
    _COMMON
    + """
local id, execution, worker, origin, moment = unpack(ARGV, 2, 6)
if not redis.call('ZSCORE', rq .. 'leases', id .. ':' .. execution) then return 0 end
forget_execution(id, execution, origin, worker)
put_back(id, origin, moment)
return 1
"""
)

# ARGV: prefix, limit of deaths, moment, packed error of a lost attempt, packed error of the last,
# seconds to keep a failure. Returns the ids that were put back, and those that have failed.
_recover = Script(
    _COMMON
    + """
local limit, moment, lost, poison, ttl = unpack(ARGV, 2, 6)
local back, failed = {}, {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', rq .. 'leases', 0, clock(), 'LIMIT', 0, 100)) do
  local id, execution = string.match(member, '^(.*):(.*)$')
  local job = redis.call('HMGET', job_key(id), 'status', 'origin', 'failure_ttl')
  local run = redis.call('HMGET', key('execution', member), 'worker_name', 'origin')
  local worker, origin = run[1] or '', run[2] or job[2] or ''
  forget_execution(id, execution, origin, worker)
  if job[1] == 'started' then
    local deaths = redis.call('HINCRBY', job_key(id), 'worker_deaths', 1)
    local stopped = redis.call('HGET', job_key(id), 'stop_requested') == '1'
    local dead = stopped or deaths >= tonumber(limit)
    redis.pcall('XADD', key('results', id), 'MAXLEN', 10, '*', 'type', 2, 'worker_name', worker,
                'exc_string', dead and not stopped and poison or lost)
    if dead then
      local keep = tonumber(job[3]) or tonumber(ttl)
      if keep < 0 then keep = tonumber(ttl) end
      local status = stopped and 'stopped' or 'failed'
      redis.call('HSET', job_key(id), 'status', status, 'ended_at', moment)
      redis.call('EXPIRE', job_key(id), keep)
      redis.call('EXPIRE', key('results', id), keep)
      redis.call('ZADD', key('failed', origin), now() + keep, id)
      if redis.call('EXISTS', job_key(id) .. ':dependents') == 1 then
        redis.call('ZADD', rq .. 'pending-dependents', now(), id)
      end
      failed[#failed + 1] = id
    else
      put_back(id, origin, moment)
      back[#back + 1] = id
    end
  end
end
return {back, failed}
"""
)

# ARGV: prefix, queue, first index, last index. Keeps alive what waits: a job that another tool
# has requeued still has the expiry of its last end. (A `ttl` is the sender's own wish.)
_keep_waiting = Script(
    _COMMON
    + """
local ids = redis.call('LRANGE', key('queue', ARGV[2]), ARGV[3], ARGV[4])
for _, id in ipairs(redis.call('ZRANGE', key('scheduled', ARGV[2]), ARGV[3], ARGV[4])) do
  ids[#ids + 1] = id
end
for _, id in ipairs(ids) do
  if redis.call('TTL', job_key(id)) > 0 and redis.call('HEXISTS', job_key(id), 'ttl') == 0 then
    redis.call('PERSIST', job_key(id))
    redis.call('PERSIST', key('results', id))
  end
end
return #ids
"""
)


@dataclass(frozen=True)
class Lease:
    """The right of one worker to run one job and to record how it ended."""

    job_id: str
    execution_id: str
    worker: str
    origin: str  # the queue whose registries the job stands in


@dataclass(frozen=True)
class Taken:
    """A job that has been started for this worker: its lease and its hash."""

    lease: Lease
    queue: str
    fields: dict[bytes, bytes]


@dataclass(frozen=True)
class Nothing:
    """There is nothing to take: nothing waits, or `rq suspend` has suspended the workers."""

    suspended: bool
    last_ring: str  # of the doorbell; whatever is queued from now on rings after it


def take(
    connection: Redis,
    worker: str,
    execution_id: str,
    seconds: float,
    queues: Sequence[str],
    again: bool = False,
    due: bool = True,
) -> Taken | Nothing:
    """Start the next job of the queues, in their order.

    With `again`, after an answer was lost, the execution gets the job that it has been given.
    With `due`, jobs whose time has come are enqueued first.
    """
    arguments = [worker, execution_id, seconds, *_now(), int(again), int(due), *queues]
    reply = _take(connection, arguments)
    if reply[0] != b'job':
        return Nothing(reply[0] == b'suspended', reply[1].decode())
    queue, job_id = reply[1].decode(), reply[2].decode()
    fields = dict(zip(reply[3][::2], reply[3][1::2], strict=True))
    origin = fields[b'origin'].decode(errors='replace')
    return Taken(Lease(job_id, execution_id, worker, origin), queue, fields)


def wait_for_ring(connection: Redis, last_ring: str, seconds: float) -> None:
    """Return when a job has been queued since `last_ring`, or after so many seconds."""
    connection.xread({DOORBELL: last_ring}, block=max(1, int(seconds * 1000)))


def renew(connection: Redis, lease: Lease, seconds: float) -> str:
    """'held', 'stop' if the job is to be stopped, or 'lost'."""
    arguments = [lease.job_id, lease.execution_id, seconds, *_now()]
    return str(_renew(connection, arguments).decode())


def record(connection: Redis, lease: Lease, commands: Pipeline) -> str:
    """Run a pipeline's commands in one step if the lease still holds, and end it.

    Returns 'done', 'dependents' if other jobs wait for this one, or 'lost' with nothing written.
    """
    arguments: list[Any] = [lease.job_id, lease.execution_id, lease.worker, lease.origin]
    for words, _ in commands.command_stack:
        arguments += (len(words), *words)
    return str(_record(connection, arguments).decode())


def finish(
    connection: Redis, lease: Lease, started: float, ended: float, result: str, ttl: int
) -> str:
    """Record that the task has returned; answers as `record` does.

    `started` and `ended` are timestamps, `result` as RQ keeps it ('' for None), `ttl` seconds.
    """
    moment = utcformat(datetime.fromtimestamp(ended, UTC))
    identity = [lease.job_id, lease.execution_id, lease.worker, lease.origin]
    reply = _finish(connection, [*identity, moment, started, ended, result, ttl])
    return str(reply.decode())


def give_back(connection: Redis, lease: Lease) -> bool:
    """Put a job back to the front of its queue as if it had never been taken."""
    arguments = [lease.job_id, lease.execution_id, lease.worker, lease.origin, _now()[0]]
    return bool(_give_back(connection, arguments))


def recover(connection: Redis, max_deaths: int, failure_ttl: int) -> list[str]:
    """Put back every job whose lease is past; fail those whose worker has died too often.

    Returns the ids of those that have failed, or were to be stopped.
    """
    lost = 'WorkerLostError: the worker died while it ran this job'
    poison = f'PoisonJobError: {max_deaths} workers died while they ran this job'
    arguments = [max_deaths, _now()[0], pack_error(lost), pack_error(poison), failure_ttl]
    back, failed = _recover(connection, arguments)
    for job_id in back:
        log.warning('Job %s was put back: its worker is gone.', job_id.decode())
    for job_id in failed:
        log.error('Job %s has ended: its worker is gone, not for the first time.', job_id.decode())
    return [job_id.decode() for job_id in failed]


def keep_waiting(connection: Redis, queue: str, first: int, last: int) -> int:
    """Take the expiry from waiting jobs in a range; returns how many it has looked at."""
    return int(_keep_waiting(connection, [queue, first, last]))


def pack_error(text: str) -> str:
    """An error as RQ keeps it in a job's results."""
    return b64encode(compress(text.encode(errors='backslashreplace'))).decode()


def _now() -> tuple[str, float]:
    moment = datetime.now(UTC)
    return utcformat(moment), moment.timestamp()
