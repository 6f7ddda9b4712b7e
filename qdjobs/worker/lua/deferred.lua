-- Queues deferred jobs that no longer have to wait, such as those whose parents another tool has
-- deleted, and notes ended jobs for which others wait. Safe to repeat.
-- ARGV: prefix, time (RQ's format), queue, first index, last index. Returns the number of ids in that
-- range of its registry.
local moment, queue = ARGV[2], ARGV[3]
local ids = redis.call('ZRANGE', key('deferred', queue), ARGV[4], ARGV[5])
for _, id in ipairs(ids) do
  if redis.pcall('HGET', job_key(id), 'status') == 'deferred' then
    local unmet = unmet_dependencies(id, 1)[1]
    if not unmet then
      settle(id, '', nil, false, moment)
    elseif ENDED[redis.call('HGET', job_key(unmet), 'status')] then
      redis.call('SADD', dependents_of(unmet), id)
      redis.call('ZADD', PENDING, 'NX', 0, unmet)
    end
  end
end
return #ids
