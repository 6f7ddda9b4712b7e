-- Stands before the scripts that deal with leases, behind common.lua.
local function clock() local t = redis.call('TIME') return t[1] + t[2] / 1000000 end

-- Take an execution out of everything but its job.
local function forget_execution(id, execution, origin, worker)
  local member = id .. ':' .. execution
  redis.call('ZREM', rq .. 'leases', member)
  redis.call('ZREM', key('wip', origin), member)
  redis.call('DEL', key('executions', id), key('execution', member))
  redis.call('SREM', key('worker', worker .. ':executions'), member)
end

local function requeue(id, queue, moment)
  redis.call('HDEL', job_key(id), 'started_at', 'worker_name', 'last_heartbeat', 'stop_requested')
  redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', moment)
  redis.call('PERSIST', job_key(id))
  redis.call('SADD', rq .. 'queues', key('queue', queue))
  redis.call('LPUSH', key('queue', queue), id)
  wake_up()
end

-- For ever, since a rate of failures cannot be told from registries, which forget. It must not keep
-- an outcome from being written.
local function count_failure(queue) redis.pcall('HINCRBY', rq .. 'failures', queue, 1) end
