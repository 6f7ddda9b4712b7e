-- Runs the commands of an outcome, if the lease still holds, and ends the lease.
-- ARGV: prefix, job id, execution, worker, origin, then for each command the number of its words
-- and the words.
-- Returns 'done', 'dependents' if other jobs wait for this one, or 'lost' with nothing run.
local id, execution, worker, origin = unpack(ARGV, 2, 5)
local expiry = redis.call('ZSCORE', rq .. 'leases', id .. ':' .. execution)
if not expiry or tonumber(expiry) < clock() then return 'lost' end
forget_execution(id, execution, origin, worker)
-- Deleted or cancelled while it ran: that stays.
if redis.call('HGET', job_key(id), 'status') ~= 'started' then return 'lost' end
local i = 6
while i <= #ARGV do
  local words = tonumber(ARGV[i])
  redis.pcall(unpack(ARGV, i + 1, i + words))  -- the others must run even if one fails
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
