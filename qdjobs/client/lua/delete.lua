-- Deletes a job in a terminal state, once the jobs that wait for it are settled.
-- ARGV: prefix, job id, time (RQ's format), cursor ('0' at first), the key that the job must be
-- in ('' for any).
-- Returns nil if the job does not exist; 'moved' if it is elsewhere (unchanged); 'deleted'; a cursor, with
-- which to call again; else its status (unchanged).
local id, job = ARGV[2], job_key(ARGV[2])
local found = redis.call('HMGET', job, 'status', 'origin')
local status, origin = found[1], found[2] or ''
if not status then return nil end
if not is_in(ARGV[5], status, origin) then return 'moved' end
-- RQ's own tools can set a terminal state while the job still runs.
if not ENDED[status] or redis.call('EXISTS', key('executions', id)) == 1 then return status end
if redis.call('EXISTS', dependents_of(id)) == 1 then
  local cursor, limited = settle_dependents(id, ARGV[3], ARGV[4], SETTLED_AT_ONCE, true)
  if #limited > 0 then return status end
  if cursor ~= '0' then return cursor end
end
forget_run(id, origin)
redis.call('DEL', job, dependents_of(id), dependencies_of(id))
call_if_fit(0, 'ZREM', PENDING, id)
return 'deleted'
