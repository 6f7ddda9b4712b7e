-- Prepended to the scripts of this folder, after common.lua.
local function clock() local t = redis.call('TIME') return t[1] + t[2] / 1000000 end

-- Deletes an execution with its lease. Keeps the job.
local function forget_execution(id, execution, origin, worker)
  local member = id .. ':' .. execution
  redis.call('ZREM', rq .. 'leases', member)
  redis.call('ZREM', key('wip', origin), member)
  redis.call('DEL', key('executions', id), key('execution', member))
  redis.call('SREM', key('worker', worker .. ':executions'), member)
end

-- Puts a job to the front of its queue.
local function requeue(id, queue, moment)
  redis.call('HDEL', job_key(id), 'started_at', 'worker_name', 'last_heartbeat', 'stop_requested')
  redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', moment)
  redis.call('PERSIST', job_key(id))
  redis.call('SADD', rq .. 'queues', key('queue', queue))
  redis.call('LPUSH', key('queue', queue), id)
  wake_up()
end

-- A count that never expires, for rates of failures: entries of registries do. An error here must
-- not prevent the outcome from being recorded.
local function count_failure(queue) redis.pcall('HINCRBY', rq .. 'failures', queue, 1) end
