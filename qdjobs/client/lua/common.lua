-- Prepended to every script, after the tables PLACE and ENDED. ARGV[1] is the key prefix.
local rq = ARGV[1] .. ':'
local MAX_WAKE_UPS = 1000
local function key(kind, name) return rq .. kind .. ':' .. name end
local function job_key(id) return key('job', id) end
local function now() return tonumber(redis.call('TIME')[1]) end

-- Wakes as many idle workers as there are new jobs: each takes one entry of the queue's list. What
-- nobody waits for is removed by the next worker that it wakes in vain.
local function wake_up(queue, jobs)
  local entries = {}
  for i = 1, math.min(jobs or 1, MAX_WAKE_UPS) do entries[i] = '1' end
  if redis.call('RPUSH', key('wake-up', queue), unpack(entries)) > MAX_WAKE_UPS then
    redis.call('LTRIM', key('wake-up', queue), -MAX_WAKE_UPS, -1)
  end
end

-- Deletes what the runs of a job have left: entries in registries, executions, results. Keeps its
-- hash and its dependents.
local function forget_run(id, origin)
  for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
    redis.call('ZREM', key(registry, origin), id)
  end
  for _, execution in ipairs(redis.call('ZRANGE', key('executions', id), 0, -1)) do
    redis.call('ZREM', key('wip', origin), id .. ':' .. execution)
    redis.call('DEL', key('execution', id .. ':' .. execution))
  end
  redis.call('DEL', key('executions', id), key('results', id))
  redis.call('PERSIST', job_key(id) .. ':dependents')
end

-- Whether the jobs that a job depends on allow it to run, by RQ's rules: a parent whose record has
-- expired does.
local function dependencies_are_met(id)
  local allows = redis.call('HGET', job_key(id), 'allow_dependency_failures')
  for _, parent in ipairs(redis.call('SMEMBERS', rq .. 'job::' .. id .. ':dependencies')) do
    local status = redis.call('HGET', job_key(parent), 'status')
    if status and status ~= 'finished' and not (status == 'failed' and allows == '1') then
      return false
    end
  end
  return true
end
