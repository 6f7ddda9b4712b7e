-- Releases a claimed job to the front of its queue, as if it had not been claimed.
-- ARGV: prefix, job id, execution, worker, origin, time (RQ's format).
-- Returns 1, or 0 if the lease was lost.
local id, execution, worker, origin, moment = unpack(ARGV, 2, 6)
if not redis.call('ZSCORE', rq .. 'leases', id .. ':' .. execution) then return 0 end
forget_execution(id, execution, origin, worker)
requeue(id, origin, moment)
return 1
