-- Prepended to every script, after the tables PLACE and ENDED. ARGV[1] is the key prefix.

-- A key can have another type than it should: another program has written it. The error of Redis does not
-- name it, so this replaces its `call`. Errors begin with WRONGTYPE, the key and the type that it has.
local server = redis
local function is_wrong_type(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, '^WRONGTYPE') ~= nil
end
local function call(...)
  local reply = server.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not is_wrong_type(reply) then error(reply) end
  local name = select(2, ...)
  error({err = 'WRONGTYPE ' .. name .. ' ' .. server.call('TYPE', name).ok})
end
local redis = {call = call, pcall = server.pcall}

-- Calls a command whose key may have another type: then returns nil, or `default`, and the others go on.
local function call_if_fit(default, ...)
  local reply = server.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not is_wrong_type(reply) then error(reply) end
  return default
end

local rq = ARGV[1] .. ':'
local MAX_WAKE_UPS = 1000
local function key(kind, name) return rq .. kind .. ':' .. name end
local function job_key(id) return key('job', id) end

-- Whether a job with this status and queue has its id in the key `place`; '' is any place.
local function is_in(place, status, origin)
  return place == '' or PLACE[status] ~= nil and key(PLACE[status], origin) == place
end

local function now() return tonumber(redis.call('TIME')[1]) end

-- Wakes as many idle workers as there are new jobs: each takes one entry of the queue's list. What
-- nobody waits for is removed by the next worker that it wakes in vain.
local function wake_up(queue, jobs)
  local entries = {}
  for i = 1, math.min(jobs or 1, MAX_WAKE_UPS) do entries[i] = '1' end
  if call_if_fit(0, 'RPUSH', key('wake-up', queue), unpack(entries)) > MAX_WAKE_UPS then
    redis.call('LTRIM', key('wake-up', queue), -MAX_WAKE_UPS, -1)
  end
end

-- Deletes what the runs of a job have left: entries in registries, executions, results. Keeps its
-- hash and its dependents.
local function forget_run(id, origin)
  for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
    call_if_fit(0, 'ZREM', key(registry, origin), id)
  end
  for _, execution in ipairs(call_if_fit({}, 'ZRANGE', key('executions', id), 0, -1)) do
    call_if_fit(0, 'ZREM', key('wip', origin), id .. ':' .. execution)
    redis.call('DEL', key('execution', id .. ':' .. execution))
  end
  redis.call('DEL', key('executions', id), key('results', id))
  redis.call('PERSIST', job_key(id) .. ':dependents')
end

local function dependencies_of(id) return rq .. 'job::' .. id .. ':dependencies' end
local function dependents_of(id) return job_key(id) .. ':dependents' end

-- Returns what a job does if a job that it waits for has ended, but not finished: 'run', 'cancel', or
-- 'wait' until that one is retried.
local function after_failure(id)
  local found = redis.call('HMGET', job_key(id), 'after_failure', 'allow_dependency_failures')
  return found[1] or (found[2] == '1' and 'run') or 'wait'
end

-- Whether a job may run, as far as a job in this state is concerned. One without a record has finished
-- and expired: those that have not finished are kept while others wait for them.
local function is_met(status, rule)
  return not status or status == 'finished' or (rule == 'run' and ENDED[status])
end

-- Returns the jobs that a job still waits for, up to a limit.
local function unmet_dependencies(id, limit)
  local rule, unmet = after_failure(id), {}
  local cursor = '0'
  repeat  -- in pages, of which the first mostly has one: those that have ended are removed
    local page = redis.call('SSCAN', dependencies_of(id), cursor, 'COUNT', 20)
    for _, parent in ipairs(page[2]) do
      if #unmet == limit then return unmet end
      if not is_met(redis.call('HGET', job_key(parent), 'status'), rule) then
        unmet[#unmet + 1] = parent
      end
    end
    cursor = page[1]
  until cursor == '0'
  return unmet
end
