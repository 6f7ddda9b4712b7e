-- Enqueues jobs that wait for a job which has ended. Safe to repeat.
-- ARGV: prefix, id of the ended job, time (RQ's format), cursor (0 at first), number of jobs to
-- look at.
-- Returns {next cursor, ids under RQ's rate limit, which the caller must enqueue}. The cursor is 0
-- after the last: then, unless the caller has some to enqueue first, the note in
-- `pending-dependents` is removed, and the record may expire.
local parent, moment, cursor, limit = unpack(ARGV, 2, 5)
local job, waiting = job_key(parent), job_key(parent) .. ':dependents'
local limited = {}

-- Enqueues a dependent if nothing else holds it back. Returns whether it need not be looked at
-- again when this job is retried.
local function enqueue(id)
  local found = redis.call('HMGET', job_key(id), 'status', 'origin', 'enqueue_at_front', 'ttl',
                           'rate_limit_key')
  if found[1] ~= 'deferred' then return true end
  if not dependencies_are_met(id) then return false end
  if found[5] then
    limited[#limited + 1] = id
    return false
  end
  local origin = found[2] or ''
  redis.call('ZREM', key('deferred', origin), id)
  enqueue_waiting(id, origin, moment, found[4], found[3] == '1')
  return true
end

local page = redis.call('SSCAN', waiting, cursor, 'COUNT', limit)
for _, id in ipairs(page[2]) do
  if enqueue(id) then redis.call('SREM', waiting, id) end
end
if page[1] == '0' and #limited == 0 then
  redis.call('ZREM', rq .. 'pending-dependents', parent)
  local expiry = tonumber(redis.call('HGET', job, 'kept_until'))
  if expiry and ENDED[redis.call('HGET', job, 'status')] then
    redis.call('HDEL', job, 'kept_until')
    local dependencies = rq .. 'job::' .. parent .. ':dependencies'
    for _, name in ipairs({job, waiting, key('results', parent), dependencies}) do
      redis.call('EXPIREAT', name, math.floor(expiry))
    end
  end
end
return {page[1], limited}
