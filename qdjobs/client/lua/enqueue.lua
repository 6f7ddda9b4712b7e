-- ARGV: prefix; in msgpack, since one argument costs the client less than thousands, the queue, the
-- score ('' = now), the fields and values that all jobs share, and for each its id, description and
-- delays of retries; then the data of each job. Returns for each job 0 if it was added, or the hash
-- of the one that is waiting or running. All is read before anything is written: all are added, or
-- none.
local queue, score, shared, ids, descriptions, delays = unpack(cmsgpack.unpack(ARGV[2]))
local statuses = {}
for i, id in ipairs(ids) do
  statuses[i] = redis.call('HGET', job_key(id), 'status')
end
local reply, pushed = {}, false
for i, id in ipairs(ids) do
  local status = statuses[i]
  if status and not ENDED[status] then
    reply[i] = redis.call('HGETALL', job_key(id))
  else
    redis.call('SADD', rq .. 'queues', key('queue', queue))
    -- Into the queue first: if that key is none of ours, the script ends with nothing written.
    if score == '' then
      redis.call('RPUSH', key('queue', queue), id)
      pushed = true
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
  end
end
if pushed then wake_up() end
return reply
