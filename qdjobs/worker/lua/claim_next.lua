-- Prepended to the scripts that claim a job, after run.lua. Redis serves no other client while a
-- script runs: hence the limits.
local DUE_AT_ONCE = 500  -- jobs of a queue
local PASSED_OVER_AT_ONCE = 1000  -- ids without a job to start, such as those of deleted jobs

-- Enqueues due jobs of a queue, except those under RQ's rate limit, which also wait for a slot.
-- Returns whether there may be more.
local function enqueue_due(queue, moment, time)
  local scheduled = key('scheduled', queue)
  local due = redis.call('ZRANGEBYSCORE', scheduled, 0, time, 'WITHSCORES', 'LIMIT', 0,
                         DUE_AT_ONCE)
  for i = 1, #due, 2 do
    local id = due[i]
    local job = redis.call('HMGET', job_key(id), 'status', 'rate_limit_key', 'enqueue_at_front',
                           'enqueue_at_front_on_retry', 'ended_at', 'ttl')
    if not job[2] then
      redis.call('ZREM', scheduled, id)
      if job[1] and not ENDED[job[1]] and job[1] ~= 'started' then
        local retry_at_front = job[4] == '1' and job[5] and job[5] ~= ''
        enqueue_waiting(id, queue, moment, job[6], job[3] == '1' or retry_at_front)
        redis.call('HSET', job_key(id), 'due_at', due[i + 1])  -- it waits since then
      end
    end
  end
  return #due == 2 * DUE_AT_ONCE
end

local function is_running(id)
  local executions = redis.pcall('ZRANGE', key('executions', id), 0, -1)
  if executions.err then return false end
  for _, other in ipairs(executions) do
    if redis.call('ZSCORE', rq .. 'leases', id .. ':' .. other) then return true end
  end
  return false
end

-- Whether a popped job is to be started. An id can be in a queue twice, or without being queued:
-- `cancel` leaves it in a long queue.
local function is_startable(id, found)
  if found.err or not (found[1] or found[3]) or ENDED[found[1]] then return false end
  if found[1] == 'scheduled' or found[1] == 'deferred' then return false end
  return not (found[1] == 'started' and is_running(id))
end

-- Starts the job whose id was popped from a queue. Returns its hash, or nil if there is nothing to
-- start.
local function start(queue, id, by)
  local found = redis.pcall('HMGET', job_key(id), 'status', 'origin', 'data')
  if not is_startable(id, found) then return nil end
  if not string.match(id, '^[%w_-]+$') then  -- RQ does not allow such ids
    redis.call('HSET', job_key(id), 'status', 'failed')
    return nil
  end
  local origin = found[2]
  if not origin or origin == '' then origin = queue end
  local run = {id = id, execution = by.execution, worker = by.worker, origin = origin}
  local member = member_of(run)
  redis.call('HSET', job_key(id), 'status', 'started', 'started_at', by.moment, 'last_heartbeat',
             by.moment, 'worker_name', by.worker, 'origin', origin, 'ended_at', '',
             'stop_requested', '')
  redis.call('PERSIST', job_key(id))
  redis.call('ZADD', rq .. 'leases', clock() + by.lease, member)
  redis.call('ZADD', key('wip', origin), '+inf', member)
  redis.call('HSET', key('execution', member), 'id', by.execution, 'job_id', id, 'created_at',
             by.timestamp, 'last_heartbeat', by.timestamp, 'worker_name', by.worker, 'origin',
             origin, unpack(by.is_ahead and {'ahead', '1'} or {}))
  redis.call('DEL', key('executions', id))
  redis.call('ZADD', key('executions', id), '+inf', by.execution)
  redis.call('SADD', key('worker', by.worker .. ':executions'), member)
  return redis.call('HGETALL', job_key(id))
end

-- Claims the next job of the queues: starts it, with a lease. `by` is a table with the fields of
-- ClaimRequest in lease.py.
-- Returns {'job', queue, id, hash, more}, or {'idle' or 'suspended', '', '', {}, more}; `more` is 1
-- if a limit was reached, so that another claim must follow at once.
local function claim_next(by)
  local more, keys, unusual = 0, {}, {rq .. 'suspended'}
  for i, queue in ipairs(by.queues) do
    keys[i] = key('queue', queue)
    if by.is_due_check then unusual[i + 1] = key('scheduled', queue) end
  end
  keys[#keys + 1] = 'LEFT'
  if redis.call('EXISTS', unpack(unusual)) > 0 then  -- one command where there is nothing to do
    if redis.call('EXISTS', rq .. 'suspended') == 1 then return {'suspended', '', '', {}, 0} end
    for _, queue in ipairs(by.queues) do
      if enqueue_due(queue, by.moment, clock()) then more = 1 end
    end
  end
  for _ = 1, PASSED_OVER_AT_ONCE do
    local popped = redis.call('LMPOP', #by.queues, unpack(keys))
    if not popped then
      if by.is_woken then  -- there are more wake-ups than jobs
        for i, queue in ipairs(by.queues) do keys[i] = key('wake-up', queue) end
        redis.call('DEL', unpack(keys, 1, #by.queues))
      end
      return {'idle', '', '', {}, more}
    end
    local queue, id = string.sub(popped[1], #key('queue', '') + 1), popped[2][1]
    local hash = start(queue, id, by)
    if hash then return {'job', queue, id, hash, more} end
  end
  return {'idle', '', '', {}, 1}
end
