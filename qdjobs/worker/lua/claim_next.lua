-- Prepended to the scripts that claim a job, after run.lua. Redis serves no other client while a
-- script runs: hence the limits.
local DUE_AT_ONCE = 500  -- jobs, of all queues together
local PASSED_OVER_AT_ONCE = 1000  -- ids without a job to start, such as those of deleted jobs

-- Returns how many jobs of a queue are due, up to a limit; the ids of those that are no longer to be
-- scheduled; of these the jobs for the back of their queue, for its front, and of each the time at which
-- it was due and its `ttl`. Jobs under RQ's rate limit, which also wait for a slot, stay.
local function find_due(queue, time, limit)
  local over, back, front, details = {}, {}, {}, {}
  local due = call_if_fit({}, 'ZRANGEBYSCORE', key('scheduled', queue), 0, time, 'WITHSCORES',
                          'LIMIT', 0, limit)
  for i = 1, #due, 2 do
    local id = due[i]
    -- Without the rest if the key has another type.
    local job = redis.pcall('HMGET', job_key(id), 'status', 'rate_limit_key', 'enqueue_at_front',
                            'enqueue_at_front_on_retry', 'ended_at', 'ttl')
    if not job[2] then
      over[#over + 1] = id
      if job[1] and not ENDED[job[1]] and job[1] ~= 'started' then
        local retry_at_front = job[4] == '1' and job[5] and job[5] ~= ''
        local ids = (job[3] == '1' or retry_at_front) and front or back
        ids[#ids + 1] = id
        details[id] = {due[i + 1], job[6]}
      end
    end
  end
  return #due / 2, over, back, front, details
end

-- Enqueues due jobs of a queue, up to a limit, with few commands for each: there may be a hundred
-- thousand. Returns how many it has looked after, and whether there may be more.
local function enqueue_due(queue, moment, time, limit)
  local seen, over, back, front, details = find_due(queue, time, limit)
  if #over == 0 or not call_if_fit(false, 'LLEN', key('queue', queue)) then return 0, false end
  if #back > 0 then redis.call('RPUSH', key('queue', queue), unpack(back)) end
  if #front > 0 then redis.call('LPUSH', key('queue', queue), unpack(front)) end
  redis.call('ZREM', key('scheduled', queue), unpack(over))
  for id, found in pairs(details) do mark_queued(id, moment, found[2], found[1]) end
  if #back + #front > 0 then
    call_if_fit(0, 'SADD', rq .. 'queues', key('queue', queue))
    wake_up(queue, #back + #front)
  end
  return #over, seen == limit
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
  call_if_fit(0, 'ZADD', key('wip', origin), '+inf', member)
  redis.call('HSET', key('execution', member), 'id', by.execution, 'job_id', id, 'created_at',
             by.timestamp, 'last_heartbeat', by.timestamp, 'worker_name', by.worker, 'origin',
             origin, unpack(by.is_ahead and {'ahead', '1'} or {}))
  redis.call('DEL', key('executions', id))
  redis.call('ZADD', key('executions', id), '+inf', by.execution)
  call_if_fit(0, 'SADD', key('worker', by.worker .. ':executions'), member)
  return redis.call('HGETALL', job_key(id))
end

-- Pops an id from the first of the queues that has one; the keys come with the word LEFT. A key of another
-- type is passed over.
local function pop(keys)
  local popped = call_if_fit(nil, 'LMPOP', #keys - 1, unpack(keys))
  if popped ~= nil then return popped end
  for i = 1, #keys - 1 do
    popped = call_if_fit(false, 'LMPOP', 1, keys[i], 'LEFT')
    if popped then return popped end
  end
  return false
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
  redis.call('ZCARD', rq .. 'leases')  -- if it has another type, fails before a job is popped
  if redis.call('EXISTS', unpack(unusual)) > 0 then  -- one command where there is nothing to do
    if redis.call('EXISTS', rq .. 'suspended') == 1 then return {'suspended', '', '', {}, 0} end
    local left = DUE_AT_ONCE
    for _, queue in ipairs(by.queues) do
      local done, are_left = enqueue_due(queue, by.moment, clock(), left)
      if are_left then more = 1 end
      left = left - done
      if left == 0 then break end
    end
  end
  for _ = 1, PASSED_OVER_AT_ONCE do
    local popped = pop(keys)
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
