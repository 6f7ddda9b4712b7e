-- ARGV: prefix, job id. Returns nil if there is no such job; 'deleted' if it had ended and is gone,
-- with all that was kept of it; else the status of a job that was left as it is.
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin')
local status, origin = found[1], found[2] or ''
if not status then return nil end
-- Whoever waits for it has yet to be enqueued, for which its record is needed.
local awaited = redis.call('ZSCORE', rq .. 'pending-dependents', id)
-- RQ's own tools can call a job ended that still runs.
local runs = redis.call('EXISTS', key('executions', id)) == 1
if not ENDED[status] or awaited or runs then return status end
forget_run(id, origin)
redis.call('DEL', job, job .. ':dependents', rq .. 'job::' .. id .. ':dependencies')
return 'deleted'
