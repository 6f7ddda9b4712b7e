-- Enqueues jobs, or schedules them: all of them, or none.
-- ARGV: prefix; a msgpack array, which is faster to send than thousands of arguments; the data of
-- each job. The array: queue, score to schedule at ('' = enqueue now), shared fields and values,
-- ids, descriptions, retry delays (JSON). The first shared field is `task`.
-- Returns for each job 0 if it was added, or the hash of the job that already waits or runs.
-- Everything is read before anything is written.
local queue, score, shared, ids, descriptions, delays = unpack(cmsgpack.unpack(ARGV[2]))
local statuses = {}
for i, id in ipairs(ids) do
  statuses[i] = redis.call('HGET', job_key(id), 'status')
end
local reply, added = {}, 0
for i, id in ipairs(ids) do
  local status = statuses[i]
  if status and not ENDED[status] then
    reply[i] = redis.call('HGETALL', job_key(id))
  else
    redis.call('SADD', rq .. 'queues', key('queue', queue))
    -- The queue first: if its key has another type, the script fails before it writes the job.
    if score == '' then
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
    if delays[i] then redis.call('HSET', job_key(id), 'retry_intervals', delays[i]) end
    reply[i] = 0
    added = added + 1
  end
end
if added > 0 then
  if score == '' then wake_up(queue, added) end
  pcall(count_jobs, 'enqueued', queue, shared[2], added)
end
return reply
