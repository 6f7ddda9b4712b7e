-- Enqueues jobs, schedules them, or defers them until others have finished: all of them, or none.
-- ARGV: prefix; a msgpack array, which is faster to send than thousands of arguments; the data of
-- each job; the metadata of each job, unless none has any. The array: queue, score to schedule at ('' =
-- enqueue now), shared fields and values, of which the first is `task`, ids, descriptions, retry delays
-- (JSON), ids of the jobs that must finish first.
-- Returns for each job 0 if it was added, 1 if it is deferred, or the hash of the job that already waits or runs; instead
-- the id of a job that must finish first, but does not exist.
-- Everything is read before anything is written.
local queue, score, shared, ids, descriptions, delays, parents = unpack(cmsgpack.unpack(ARGV[2]))
local statuses = {}
for i, id in ipairs(ids) do
  statuses[i] = redis.call('HGET', job_key(id), 'status')
end
local waits = false  -- for a parent
for _, parent in ipairs(parents) do
  local status = redis.call('HGET', job_key(parent), 'status')
  if not status then return parent end
  waits = waits or status ~= 'finished'
end

local function defer(id)
  redis.call('HSET', job_key(id), 'status', 'deferred', 'dependency_ids', cjson.encode(parents))
  redis.call('HDEL', job_key(id), 'enqueued_at')
  for _, parent in ipairs(parents) do
    redis.call('SADD', job_key(parent) .. ':dependents', id)
    local ttl = redis.call('TTL', job_key(parent))
    if ttl > 0 then redis.call('EXPIRE', job_key(parent) .. ':dependents', ttl) end
  end
end

local reply, added = {}, 0
for i, id in ipairs(ids) do
  local status = statuses[i]
  if status and not ENDED[status] then
    reply[i] = redis.call('HGETALL', job_key(id))
  else
    redis.call('SADD', rq .. 'queues', key('queue', queue))
    -- The queue first: if its key has another type, the script fails before it writes the job.
    if waits then
      redis.call('ZADD', key('deferred', queue), '+inf', id)
    elseif score == '' then
      redis.call('RPUSH', key('queue', queue), id)
    else
      redis.call('ZADD', key('scheduled', queue), score, id)
    end
    if status then
      forget_run(id, redis.call('HGET', job_key(id), 'origin') or queue)
    end
    redis.call('DEL', job_key(id), rq .. 'job::' .. id .. ':dependencies')
    redis.call('HSET', job_key(id), 'data', ARGV[2 + i], 'description', descriptions[i],
               unpack(shared))
    local meta = ARGV[2 + #ids + i]
    if meta and meta ~= '' then redis.call('HSET', job_key(id), 'meta', meta) end
    if delays[i] then redis.call('HSET', job_key(id), 'retry_intervals', delays[i]) end
    if #parents > 0 then
      redis.call('SADD', rq .. 'job::' .. id .. ':dependencies', unpack(parents))
    end
    if waits then defer(id) end
    reply[i] = waits and 1 or 0
    added = added + 1
  end
end
if added > 0 then
  if score == '' and not waits then wake_up(queue, added) end
  pcall(count_jobs, 'enqueued', queue, shared[2], added)
end
return reply
