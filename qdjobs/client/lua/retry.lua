-- Requeues a failed, stopped or cancelled job; defers it if jobs that it depends on have not ended.
-- ARGV: prefix, job id, time (RQ's format), the key that the job must be in ('' for any).
-- Returns nil if the job does not exist; {previous status, hash} if it was requeued; else {status},
-- unchanged, where 'limited' is a job under RQ's rate limit, and 'moved' one that is elsewhere.
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin', 'retry_intervals', 'rate_limit_key',
                         'task')
local status, origin, intervals = found[1], found[2] or '', found[3]
if not status then return nil end
if not is_in(ARGV[4], status, origin) then return {'moved'} end
if not ENDED[status] or status == 'finished' then return {status} end
if found[4] then return {'limited'} end
local decoded, delays = pcall(cjson.decode, intervals or '')
local is_deferred = #unmet_dependencies(id, 1) > 0
if is_deferred then
  defer(id, origin, redis.call('SMEMBERS', dependencies_of(id)))
else
  redis.call('RPUSH', key('queue', origin), id)
  wake_up(origin)
end
call_if_fit(0, 'SADD', rq .. 'queues', key('queue', origin))
forget_run(id, origin)
redis.call('PERSIST', job)
redis.call('PERSIST', dependencies_of(id))
redis.call('HDEL', job, 'started_at', 'ended_at', 'last_heartbeat', 'worker_name', 'result',
           'exc_info', 'number_of_retries', 'worker_deaths', 'lost_run', 'unknown_since',
           'unknown_why', 'kept_until', 'stop_requested', 'due_at', 'blocked_by')
redis.call('HSET', job, 'status', is_deferred and 'deferred' or 'queued', 'enqueued_at', ARGV[3])
if decoded then redis.call('HSET', job, 'retries_left', #delays) end
pcall(count_jobs, 'enqueued', origin, found[5], 1)
return {status, redis.call('HGETALL', job)}
