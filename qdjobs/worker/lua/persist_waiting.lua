-- Removes the expiry of waiting jobs: a job that another tool has requeued keeps the expiry of its
-- last outcome. A job with a `ttl` keeps its expiry.
-- ARGV: prefix, queue, first index, last index. Returns the number of ids in that range.
local ids = redis.call('LRANGE', key('queue', ARGV[2]), ARGV[3], ARGV[4])
for _, id in ipairs(redis.call('ZRANGE', key('scheduled', ARGV[2]), ARGV[3], ARGV[4])) do
  ids[#ids + 1] = id
end
for _, id in ipairs(ids) do
  if redis.call('TTL', job_key(id)) > 0 then
    local found = redis.pcall('HMGET', job_key(id), 'status', 'ttl')
    -- An id can be left in a queue when its job has ended, as by `cancel`.
    if not found.err and not ENDED[found[1]] and not found[2] then
      redis.call('PERSIST', job_key(id))
      redis.call('PERSIST', key('results', id))
    end
  end
end
return #ids
