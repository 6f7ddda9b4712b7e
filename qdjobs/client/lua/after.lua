-- Prepended to the scripts that queue or cancel jobs which wait for others, after count.lua.
-- docs/workflows.md has the rules.

-- Ended jobs for which others wait, and when to look at these. Such a job is kept beyond its time, which
-- is `kept_until`.
local PENDING = rq .. 'pending-dependents'
local SETTLED_AT_ONCE = 1000  -- jobs: Redis serves no other client meanwhile

-- Marks a job that was due, or has waited for other jobs, as queued; `due_at` is since when it waits, or
-- nil.
local function mark_queued(id, moment, ttl, due_at)
  redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', moment,
             unpack(due_at and {'due_at', due_at} or {}))
  redis.call('PERSIST', job_key(id))
  if ttl then redis.pcall('EXPIRE', job_key(id), ttl) end  -- it may be no number
end

-- Puts a job that has waited for other jobs into its queue.
local function enqueue_waiting(id, queue, moment, ttl, at_front)
  redis.call(at_front and 'LPUSH' or 'RPUSH', key('queue', queue), id)
  mark_queued(id, moment, ttl)
  call_if_fit(0, 'SADD', rq .. 'queues', key('queue', queue))
  wake_up(queue)
end

-- Returns the keys of a job but those of its runs.
local function keys_of(id)
  return {job_key(id), key('results', id), dependencies_of(id), dependents_of(id)}
end

-- Lets an ended job be kept until those that wait for it have been looked at.
local function keep_for_dependents(id, expiry)
  redis.call('HSET', job_key(id), 'kept_until', expiry)
  for _, name in ipairs(keys_of(id)) do redis.pcall('PERSIST', name) end
  call_if_fit(0, 'ZADD', PENDING, 0, id)
end

-- Has a worker look at the jobs that wait for one which has ended, but not finished.
local function note_ended(parent)
  local ttl = redis.call('TTL', job_key(parent))
  if ttl >= 0 then
    keep_for_dependents(parent, now() + ttl)
  else
    call_if_fit(0, 'ZADD', PENDING, 'NX', 0, parent)
  end
end

-- Has a job wait for those of its parents that it has to wait for.
local function defer(id, queue, parents)
  local rule = after_failure(id)
  redis.call('ZADD', key('deferred', queue), '+inf', id)
  redis.call('DEL', dependencies_of(id))
  for _, parent in ipairs(parents) do
    local status = redis.call('HGET', job_key(parent), 'status')
    if not is_met(status, rule) then
      redis.call('SADD', dependencies_of(id), parent)
      redis.call('SADD', dependents_of(parent), id)
      if ENDED[status] then
        note_ended(parent)
        call_if_fit(0, 'ZADD', PENDING, 0, parent)  -- soon, whatever was noted for others
      end
    end
  end
end

-- Cancels a job that is in no queue.
local function cancel_waiting(id, queue, task, moment, ttl)
  for _, registry in ipairs({'scheduled', 'deferred', 'ready'}) do
    call_if_fit(0, 'ZREM', key(registry, queue), id)
  end
  redis.call('HSET', job_key(id), 'status', 'canceled', 'ended_at', moment)
  if redis.call('EXISTS', dependents_of(id)) == 1 then
    keep_for_dependents(id, now() + ttl)
  else  -- the results are those of attempts before it was cancelled
    for _, name in ipairs(keys_of(id)) do redis.call('EXPIRE', name, ttl) end
  end
  -- RQ never cleans this registry and sets no expiry on jobs that it cancels: do both here.
  local registry = key('canceled', queue)
  for _, old in ipairs(call_if_fit({}, 'ZRANGEBYSCORE', registry, 0, now(), 'LIMIT', 0, 100)) do
    local found = call_if_fit({}, 'HMGET', job_key(old), 'status', 'kept_until')
    if found[1] == 'canceled' and not found[2] and redis.call('TTL', job_key(old)) == -1 then
      if redis.call('EXISTS', dependents_of(old)) == 1 then
        keep_for_dependents(old, now() + ttl)
      else
        redis.call('EXPIRE', job_key(old), ttl)
      end
      call_if_fit(0, 'ZADD', registry, now() + ttl, old)
    else
      redis.call('ZREM', registry, old)
    end
  end
  call_if_fit(0, 'ZADD', registry, now() + ttl, id)
  pcall(count_jobs, 'canceled', queue, task, 1)
end

-- Queues or cancels a job that waits for one that has ended, `parent`, if it is time to; without one,
-- queues it if it waits for none. `is_final`: the parent will not be retried.
-- Returns whether it still waits; with 'limited' the caller must enqueue it.
local function settle(id, parent, status, is_final, moment)
  local found = redis.call('HMGET', job_key(id), 'status', 'origin', 'enqueue_at_front', 'ttl',
                           'rate_limit_key', 'task', 'result_ttl')
  if found[1] ~= 'deferred' then return false end
  -- Enqueued anew under its id, it may wait for others.
  if parent and redis.call('SISMEMBER', dependencies_of(id), parent) == 0 then return false end
  local queue = found[2] or ''
  if #unmet_dependencies(id, 1) == 0 then
    if found[5] then return 'limited' end
    enqueue_waiting(id, queue, moment, found[4], found[3] == '1')
    call_if_fit(0, 'ZREM', key('deferred', queue), id)
    return false
  end
  local rule = after_failure(id)
  if is_met(status, rule) then
    redis.call('SREM', dependencies_of(id), parent)
    return true
  end
  if rule == 'wait' and not is_final then return true end
  redis.call('HSET', job_key(id), 'blocked_by', parent)
  cancel_waiting(id, queue, found[6], moment, tonumber(found[7]) or 86400)
  return false
end

-- Settles about `count` of the jobs that wait for an ended one. Safe to repeat.
-- Returns the next cursor, and the ids of those under RQ's rate limit, which the caller must enqueue.
-- After the last, a note in PENDING is left only if some wait until the ended one is retried.
local function settle_dependents(parent, moment, cursor, count, is_deleted)
  local found = redis.call('HMGET', job_key(parent), 'status', 'kept_until')
  local status, kept_until, limited = found[1], tonumber(found[2]), {}
  if status and not ENDED[status] then  -- it is retried, and its next end makes a new note
    call_if_fit(0, 'ZREM', PENDING, parent)
    return '0', limited
  end
  local is_final = is_deleted or (kept_until ~= nil and kept_until <= now())
  local page = call_if_fit({'0', {}}, 'SSCAN', dependents_of(parent), cursor, 'COUNT', count)
  for _, id in ipairs(page[2]) do
    local is_done, waits = pcall(settle, id, parent, status, is_final, moment)
    if not is_done and not is_wrong_type(waits) then error(waits) end
    if waits == 'limited' then limited[#limited + 1] = id end
    if not waits then redis.call('SREM', dependents_of(parent), id) end
  end
  if page[1] ~= '0' or #limited > 0 then return page[1], limited end
  local are_waiting = redis.call('EXISTS', dependents_of(parent)) == 1
  if are_waiting and status ~= 'finished' and kept_until and not is_final then
    call_if_fit(0, 'ZADD', PENDING, kept_until, parent)
    return '0', limited
  end
  call_if_fit(0, 'ZREM', PENDING, parent)
  if kept_until then
    redis.call('HDEL', job_key(parent), 'kept_until')
    for _, name in ipairs(keys_of(parent)) do
      redis.call('EXPIREAT', name, math.floor(kept_until))
    end
  end
  return '0', limited
end
