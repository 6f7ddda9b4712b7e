-- ARGV: prefix, job id, execution, worker, origin, then commands: for each the number of its words,
-- and the words. Runs them all if the lease still holds. Returns 'done', 'dependents' if other jobs
-- wait for this one, or 'lost'.
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
if status == 'queued' then wake_up() end
if status == 'failed' then count_failure(origin) end
if ENDED[status] and redis.call('EXISTS', job_key(id) .. ':dependents') == 1 then
  redis.call('ZADD', rq .. 'pending-dependents', now(), id)
  return 'dependents'
end
return 'done'
