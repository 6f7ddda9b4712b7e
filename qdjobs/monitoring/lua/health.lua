-- Reads the state of queues and workers. Changes nothing. Its cost does not depend on the number
-- of jobs.
-- ARGV: prefix, ids of each list to check, seconds after which a due job is late, queues…
-- Returns the time, 1 if the workers are suspended, the number of expired leases, the counts of
-- each queue (see below), and the key, the job and the fields of each worker.
local depth, late, time = tonumber(ARGV[2]), tonumber(ARGV[3]), now()

-- Expired entries, which RQ's clean-up would remove, are not counted, and not removed.
local function unexpired(registry, queue)
  return call_if_fit(0, 'ZCOUNT', key(registry, queue), time, '+inf')
end

-- The number of started jobs that no worker runs or will requeue: they have no lease, and no
-- current heartbeat of a stock worker.
local function abandoned(queue)
  local found, entries = 0, call_if_fit({}, 'ZRANGE', key('wip', queue), 0, depth - 1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    local expiry = tonumber(entries[i + 1])
    local stock_runs = expiry >= time and expiry ~= math.huge
    if not stock_runs and not call_if_fit(true, 'ZSCORE', rq .. 'leases', entries[i]) then
      found = found + 1
    end
  end
  return found
end

-- Of the next jobs to run: how many have no record, and when the oldest was enqueued. That is not
-- always the first: requeued jobs are put before older ones.
local function waiting(queue)
  local missing, oldest = 0, ''
  for _, id in ipairs(call_if_fit({}, 'LRANGE', key('queue', queue), 0, depth - 1)) do
    local job = redis.pcall('HMGET', job_key(id), 'status', 'enqueued_at')
    if not job[1] then
      missing = missing + 1
    elseif job[2] and (oldest == '' or job[2] < oldest) then
      oldest = job[2]
    end
  end
  return missing, oldest
end

-- Of the next delayed jobs: how many no worker's code could run so far, and the id of one with why.
local function unknown(queue)
  local found, example, reason = 0, '', ''
  for _, id in ipairs(call_if_fit({}, 'ZRANGE', key('scheduled', queue), 0, depth - 1)) do
    local why = call_if_fit(false, 'HGET', job_key(id), 'unknown_why')
    if why then
      found, example, reason = found + 1, id, string.sub(why, 1, 1000)
    end
  end
  return found, example, reason
end

-- The job that a worker runs, and not the one that it has claimed ahead.
local function job_of(worker)
  for _, member in ipairs(call_if_fit({}, 'SMEMBERS', worker .. ':executions')) do
    if not call_if_fit(false, 'HGET', key('execution', member), 'ahead') then
      return string.match(member, '^(.*):') or ''
    end
  end
  return ''
end

local queues, workers = {}, {}
for i = 4, #ARGV do
  local queue = ARGV[i]
  local missing, oldest = waiting(queue)
  local unknown_jobs, example, reason = unknown(queue)
  queues[#queues + 1] = {
    call_if_fit(0, 'LLEN', key('queue', queue)),
    call_if_fit(0, 'ZCARD', key('scheduled', queue)),
    call_if_fit(0, 'ZCARD', key('deferred', queue)),
    call_if_fit(0, 'ZCARD', key('ready', queue)),
    call_if_fit(0, 'ZCARD', key('wip', queue)),
    unexpired('finished', queue),
    unexpired('failed', queue),
    unexpired('canceled', queue),
    call_if_fit(0, 'ZCOUNT', key('scheduled', queue), 0, time - late),
    abandoned(queue),
    missing,
    oldest,
    unknown_jobs,
    example,
    reason,
  }
end
for _, worker in ipairs(call_if_fit({}, 'SMEMBERS', rq .. 'workers')) do
  local fields = call_if_fit({}, 'HMGET', worker, 'birth', 'state', 'queues', 'hostname',
                             'worker_class', 'successful_job_count', 'failed_job_count',
                             'last_heartbeat')
  if fields[1] then workers[#workers + 1] = {worker, job_of(worker), unpack(fields, 2, 8)} end
end
return {time, redis.call('EXISTS', rq .. 'suspended'),
        call_if_fit(0, 'ZCOUNT', rq .. 'leases', '-inf', time), queues, workers}
