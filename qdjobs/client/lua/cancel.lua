-- Cancels a waiting job; requests a running one to be stopped, unless it is to be left.
-- ARGV: prefix, job id, time (RQ's format), seconds to keep a cancelled job, 1 to leave a running
-- job unchanged.
-- Returns nil if the job does not exist; 'limited' if it waits under RQ's rate limit (unchanged);
-- 'started' if it runs: a stop was requested, or it is left; 'canceled' if it is cancelled; else its terminal state
-- (unchanged).
local MAX_SEARCH = 10000
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin', 'worker_name', 'rate_limit_key',
                         'task')
local status, origin, worker = found[1], found[2] or '', found[3]
if not status or ENDED[status] then return status end
if status == 'started' and ARGV[5] == '1' then return status end
if status == 'started' then
  redis.call('HSET', job, 'stop_requested', 1)  -- in case the worker misses the command
  local command = cjson.encode({command = 'stop-job', job_id = id})
  redis.call('PUBLISH', key('pubsub', worker or ''), command)
  return status
end
if found[4] then return 'limited' end
-- Only from a queue in which it is found quickly: a worker passes over the id of a cancelled job.
if redis.call('LLEN', key('queue', origin)) <= MAX_SEARCH then
  redis.call('LREM', key('queue', origin), 0, id)
end
for _, registry in ipairs({'scheduled', 'deferred', 'ready'}) do
  redis.call('ZREM', key(registry, origin), id)
end
redis.call('HSET', job, 'status', 'canceled', 'ended_at', ARGV[3])
local dependencies = rq .. 'job::' .. id .. ':dependencies'
-- The results are those of attempts before it was cancelled.
for _, name in ipairs({job, key('results', id), job .. ':dependents', dependencies}) do
  redis.call('EXPIRE', name, ARGV[4])
end
-- RQ never cleans this registry and sets no expiry on jobs that it cancels: do both here.
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
pcall(count_jobs, 'canceled', origin, found[5], 1)
return 'canceled'
