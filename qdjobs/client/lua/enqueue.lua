-- Enqueues jobs, or schedules them: all of them, or none.
-- ARGV: prefix; a msgpack array, which is faster to send than thousands of arguments; the data of
-- each job; the metadata of each job, unless none has any. The array: queue, score to schedule at ('' = enqueue now), shared fields and values,
-- ids, descriptions, retry delays (JSON).
-- Returns for each job 0 if it was added, or the hash of the job that already waits or runs.
-- Everything is read before anything is written.
local queue, score, shared, ids, descriptions, delays = unpack(cmsgpack.unpack(ARGV[2]))
local statuses = {}
for i, id in ipairs(ids) do
  statuses[i] = redis.call('HGET', job_key(id), 'status')
end
local reply, pushed = {}, 0
for i, id in ipairs(ids) do
  local status = statuses[i]
  if status and not ENDED[status] then
    reply[i] = redis.call('HGETALL', job_key(id))
  else
    redis.call('SADD', rq .. 'queues', key('queue', queue))
    -- The queue first: if its key has another type, the script fails before it writes the job.
    if score == '' then
      redis.call('RPUSH', key('queue', queue), id)
      pushed = pushed + 1
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
    reply[i] = 0
  end
end
if pushed > 0 then wake_up(queue, pushed) end
return reply
