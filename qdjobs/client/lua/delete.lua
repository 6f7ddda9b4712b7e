-- Deletes a job in a terminal state.
-- ARGV: prefix, job id.
-- Returns nil if the job does not exist; 'deleted'; else its status (unchanged).
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin')
local status, origin = found[1], found[2] or ''
if not status then return nil end
-- Dependents that are not enqueued yet need the record.
local awaited = redis.call('ZSCORE', rq .. 'pending-dependents', id)
-- RQ's own tools can set a terminal state while the job still runs.
local runs = redis.call('EXISTS', key('executions', id)) == 1
if not ENDED[status] or awaited or runs then return status end
forget_run(id, origin)
redis.call('DEL', job, job .. ':dependents', rq .. 'job::' .. id .. ':dependencies')
return 'deleted'
