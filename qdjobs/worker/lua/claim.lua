-- Claims the next job of the queues: starts it, with a lease.
-- ARGV: prefix, worker, execution, lease (s), time (RQ's format), timestamp, 1 if the reply of an
-- earlier call for this execution was lost, 1 to enqueue due jobs first, queues…
-- Returns {'job', queue, id, hash} or {'idle' or 'suspended', id of the last wake-up}.
-- The two flags save commands, since this runs for every job.
local worker, execution, lease, moment, timestamp, reply_lost, due = unpack(ARGV, 2, 8)
local worker_executions = key('worker', worker .. ':executions')

if reply_lost == '1' then
  for _, member in ipairs(redis.call('SMEMBERS', worker_executions)) do
    local id, claimed = string.match(member, '^(.*):(.*)$')
    if claimed == execution and redis.call('ZSCORE', rq .. 'leases', member) then
      local origin = redis.call('HGET', job_key(id), 'origin')
      return {'job', origin, id, redis.call('HGETALL', job_key(id))}
    end
  end
end

local function last_wake_up()
  local last = redis.call('XREVRANGE', rq .. 'doorbell', '+', '-', 'COUNT', 1)
  return last[1] and last[1][1] or '0-0'
end
if redis.call('EXISTS', rq .. 'suspended') == 1 then return {'suspended', last_wake_up()} end

-- Enqueues due jobs of a queue, except those under RQ's rate limit, which also wait for a slot.
local function enqueue_due(queue)
  local scheduled = key('scheduled', queue)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, 0, now(), 'LIMIT', 0, 100)) do
    local job = redis.call('HMGET', job_key(id), 'status', 'rate_limit_key', 'enqueue_at_front',
                           'enqueue_at_front_on_retry', 'ended_at', 'ttl')
    if not job[2] then
      redis.call('ZREM', scheduled, id)
      if job[1] and not ENDED[job[1]] and job[1] ~= 'started' then
        local retry_at_front = job[4] == '1' and job[5] and job[5] ~= ''
        local push = (job[3] == '1' or retry_at_front) and 'LPUSH' or 'RPUSH'
        redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', moment)
        redis.call('PERSIST', job_key(id))
        if job[6] then redis.call('EXPIRE', job_key(id), job[6]) end
        redis.call(push, key('queue', queue), id)
        wake_up()
      end
    end
  end
end

local function is_running(id)
  local executions = redis.pcall('ZRANGE', key('executions', id), 0, -1)
  if executions.err then return false end
  for _, other in ipairs(executions) do
    if redis.call('ZSCORE', rq .. 'leases', id .. ':' .. other) then return true end
  end
  return false
end

-- Starts the job whose id was popped, unless it has ended, is running, or does not exist.
local function start(queue, id)
  local found = redis.pcall('HMGET', job_key(id), 'status', 'origin', 'data')
  if found.err or not (found[1] or found[3]) or ENDED[found[1]] then return nil end
  if not string.match(id, '^[%w_-]+$') then  -- RQ does not allow such ids
    redis.call('HSET', job_key(id), 'status', 'failed')
    return nil
  end
  if found[1] == 'started' and is_running(id) then return nil end
  local member = id .. ':' .. execution
  local origin = found[2]
  if not origin or origin == '' then origin = queue end
  redis.call('HSET', job_key(id), 'status', 'started', 'started_at', moment, 'last_heartbeat',
             moment, 'worker_name', worker, 'origin', origin, 'ended_at', '',
             'stop_requested', '')
  redis.call('PERSIST', job_key(id))
  redis.call('ZADD', rq .. 'leases', clock() + lease, member)
  redis.call('ZADD', key('wip', origin), '+inf', member)
  redis.call('HSET', key('execution', member), 'id', execution, 'job_id', id, 'created_at',
             timestamp, 'last_heartbeat', timestamp, 'worker_name', worker, 'origin', origin)
  redis.call('DEL', key('executions', id))
  redis.call('ZADD', key('executions', id), '+inf', execution)
  redis.call('SADD', worker_executions, member)
  return {'job', queue, id, redis.call('HGETALL', job_key(id))}
end

if due == '1' then
  for i = 9, #ARGV do enqueue_due(ARGV[i]) end
end
for i = 9, #ARGV do
  local id = redis.call('LPOP', key('queue', ARGV[i]))
  while id do
    local job = start(ARGV[i], id)
    if job then return job end
    id = redis.call('LPOP', key('queue', ARGV[i]))
  end
end
return {'idle', last_wake_up()}
