-- Queues deferred jobs that no longer have to wait, such as those whose parents another tool has
-- deleted, and notes ended jobs for which others wait. Safe to repeat.
-- ARGV: prefix, time (RQ's format), queue, first index, last index. Returns the number of ids in that
-- range of its registry, and how many of them are there no more.
local moment, queue = ARGV[2], ARGV[3]
local ids = redis.call('ZRANGE', key('deferred', queue), ARGV[4], ARGV[5])
local removed = 0
for _, id in ipairs(ids) do
  if redis.pcall('HGET', job_key(id), 'status') == 'deferred' then
    local is_known, unmet = pcall(unmet_dependencies, id, 20)
    if not is_known then unmet = {id} end  -- a key of another type: it waits
    for _, parent in ipairs(unmet) do
      if ENDED[redis.call('HGET', job_key(parent), 'status')] then
        call_if_fit(0, 'SADD', dependents_of(parent), id)
        note_ended(parent)
      end
    end
    if #unmet == 0 and not settle(id, nil, nil, false, moment) then removed = removed + 1 end
  end
end
return {#ids, removed}
