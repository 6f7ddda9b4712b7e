-- ARGV: prefix, job id, moment (RQ's format). Returns nil if there is no such job, else the status
-- that it had, and its hash: failed, stopped and canceled jobs are waiting again, others are
-- untouched, as are, with the status 'limited', those that have to wait under RQ's rate limit.
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin', 'retry_intervals', 'rate_limit_key')
local status, origin, intervals = found[1], found[2] or '', found[3]
if not status then return nil end
if not ENDED[status] or status == 'finished' then return {status} end
if found[4] then return {'limited'} end
local decoded, delays = pcall(cjson.decode, intervals or '')
redis.call('RPUSH', key('queue', origin), id)
wake_up()
redis.call('SADD', rq .. 'queues', key('queue', origin))
forget_run(id, origin)
redis.call('PERSIST', job)
redis.call('HDEL', job, 'started_at', 'ended_at', 'last_heartbeat', 'worker_name', 'result',
           'exc_info', 'number_of_retries', 'worker_deaths', 'stop_requested')
redis.call('HSET', job, 'status', 'queued', 'enqueued_at', ARGV[3])
if decoded then redis.call('HSET', job, 'retries_left', #delays) end
return {status, redis.call('HGETALL', job)}
