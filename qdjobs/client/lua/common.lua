-- Prepended to every script. ARGV[1] is the key prefix.
local rq = ARGV[1] .. ':'
local ENDED = {finished = true, failed = true, stopped = true, canceled = true}
local function key(kind, name) return rq .. kind .. ':' .. name end
local function job_key(id) return key('job', id) end
local function now() return tonumber(redis.call('TIME')[1]) end
-- Wakes every idle worker. They wait for a new entry in this stream, which keeps one.
local function wake_up() redis.call('XADD', rq .. 'doorbell', 'MAXLEN', 1, '*', 'ring', 1) end

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
