-- Prepended to the scripts of this folder, after common.lua. A run is one execution of a job:
-- {id, execution, worker, origin}, where origin is the queue whose registries hold the job.
local DEFAULT_FAILURE_TTL, MAX_TTL = 31536000, 315360000  -- seconds; RQ's default, and a limit

local MAX_FOLLOWERS = 10  -- of one job, that run at the same time
local MIN_FOLLOWED_TTL = 3600  -- seconds for which what follows a job can read its outcome
local FOLLOWED_BY = {finished = 'on_success', failed = 'on_failure'}  -- fields of its hash

local time_now
local function clock()
  if not time_now then
    local t = redis.call('TIME')
    time_now = t[1] + t[2] / 1000000
  end
  return time_now
end
local function member_of(run) return run.id .. ':' .. run.execution end

-- Deletes the execution of a run with its lease. Keeps the job. Returns whether this was the job's
-- present run.
local function forget_execution(run)
  local member = member_of(run)
  redis.call('ZREM', rq .. 'leases', member)
  call_if_fit(0, 'ZREM', key('wip', run.origin), member)
  redis.call('DEL', key('execution', member))
  call_if_fit(0, 'SREM', key('worker', run.worker .. ':executions'), member)
  return call_if_fit(1, 'ZREM', key('executions', run.id), run.execution) == 1
end

local function add_result(run, ending)
  local fields = {'type', ending.kind, 'worker_name', run.worker}
  if not ending.is_recovery then  -- it names the run that has recorded its own end
    fields[5], fields[6] = 'execution_id', run.execution
  end
  for _, name in ipairs({'execution_started_at', 'execution_ended_at'}) do
    if ending[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = ending[name]
    end
  end
  if ending.value then
    fields[#fields + 1] = ending.field
    fields[#fields + 1] = ending.value
  end
  -- An error here, such as a key of another type, must not prevent the end of the run.
  redis.pcall('XADD', key('results', run.id), 'MAXLEN', 10, '*', unpack(fields))
end

local function make_waiting(run, ending)
  local job = job_key(run.id)
  redis.call('HDEL', job, 'started_at', 'worker_name', 'last_heartbeat', 'stop_requested')
  redis.call('PERSIST', job)
  redis.pcall('PERSIST', key('results', run.id))
  call_if_fit(0, 'SADD', rq .. 'queues', key('queue', run.origin))
  if ending.status == 'scheduled' then
    local due = math.ceil(clock() + ending.delay)
    redis.call('ZADD', key('scheduled', run.origin), due, run.id)
  else
    redis.call(ending.at_front and 'LPUSH' or 'RPUSH', key('queue', run.origin), run.id)
    wake_up(run.origin)
  end
end

-- Returns the id of the job that is to follow an end: that of one which still waits, from an earlier end,
-- but not of one which runs, and may have seen that end only.
local function follower_id(id, name)
  local plain = id .. '-' .. string.gsub(name, '_', '-')
  for n = 1, MAX_FOLLOWERS do
    local candidate = n == 1 and plain or plain .. '-' .. n
    if redis.call('HGET', job_key(candidate), 'status') ~= 'started' then return candidate end
  end
  return plain
end

-- Adds the job that a job wants to follow its end. `name` is that of the fields which have it, or false.
-- Returns whether there is one.
local function add_follower(run, moment, packed, name)
  if not packed or not name then return false end
  local request = cjson.decode(packed)
  local found = redis.call('HMGET', job_key(run.id), name .. '_data', 'follower_meta',
                           name .. '_delays')
  request.ids = {follower_id(run.id, name)}
  request.delays = {found[3] or nil}
  request.descriptions = {request.shared[2] .. "('" .. run.id .. "')"}
  add_jobs(request, {found[1], found[2] or ''}, moment, 0)
  return true
end

-- Returns the seconds to keep an ended job, whatever its record says; negative: for ever.
local function ttl_of(text)
  local ttl = tonumber(text)
  if not ttl or ttl ~= ttl then return DEFAULT_FAILURE_TTL end
  return math.floor(math.max(-1, math.min(ttl, MAX_TTL)))
end

-- Registers an ended job, and lets its record expire. While jobs that wait for it are not settled,
-- which `dependents` does, a note in PENDING keeps the record. Returns whether there are such jobs.
local function make_terminal(run, ending, ttl)
  local job, results, dependencies = job_key(run.id), key('results', run.id), dependencies_of(run.id)
  local has_dependents = redis.call('EXISTS', dependents_of(run.id)) == 1
  if ttl == 0 and not has_dependents then
    redis.call('DEL', job, results, dependencies)
    return false
  end
  local expiry = ttl >= 0 and clock() + ttl or '+inf'
  if ttl ~= 0 and not ending.is_unregistered then
    call_if_fit(0, 'ZADD', key(PLACE[ending.status], run.origin), expiry, run.id)
  end
  if ttl < 0 then
    redis.pcall('PERSIST', results)
  elseif has_dependents then
    redis.call('HSET', job, 'kept_until', expiry)
  else
    for _, name in ipairs({job, results, dependencies}) do redis.call('EXPIRE', name, ttl) end
  end
  if has_dependents then
    redis.call('PERSIST', dependents_of(run.id))
    call_if_fit(0, 'ZADD', PENDING, clock(), run.id)
  end
  return has_dependents
end

local function count(run, ending)
  local worker = key('worker', run.worker)
  if ending.counter then
    call_if_fit(0, 'HINCRBY', worker, ending.counter, 1)
    local seconds = (ending.execution_ended_at or 0) - (ending.execution_started_at or 0)
    redis.pcall('HINCRBYFLOAT', worker, 'total_working_time', seconds)
  end
end

-- Returns what the end of a run is counted as: a key of OUTCOMES in counts.py; nil if nothing ran.
local function outcome_of(ending)
  if ending.is_recovery then return 'lost' end
  if ending.counter == 'successful_job_count' then return 'finished' end  -- also if it repeats
  if ENDED[ending.status] then return ending.status end
  return ending.counter and 'retried'
end

-- Clocks of machines differ, and records can be malformed.
local function seconds_between(from, to) return math.max(0, math.min(to - from, MAX_TTL)) end

local function bucket_of(seconds)
  for _, bound in ipairs(BUCKETS) do
    if seconds <= bound then return bound end
  end
  return 'inf'
end

local function add_seconds(time, task, seconds)
  redis.call('HINCRBY', METRICS, time .. '|' .. task .. '|sum', math.floor(seconds * 1000000))
end

-- Counts the end of a run, and how long the job has waited since a time, if that is known.
local function measure(run, ending, task, since)
  local outcome, started = outcome_of(ending), ending.execution_started_at
  if not outcome then return end
  if not started then
    count_jobs(outcome, run.origin, task, 1)
    return
  end
  local ran = seconds_between(started, ending.execution_ended_at)
  task = count_jobs(outcome, run.origin, task, 1, bucket_of(ran))
  add_seconds('running', task, ran)
  if since then
    local waited = seconds_between(since, started)
    redis.call('HINCRBY', METRICS, 'waiting|' .. task .. '|' .. bucket_of(waited), 1)
    add_seconds('waiting', task, waited)
  end
end

-- Whether the last result of the job is that of this run: it has ended, and the reply was lost.
local function has_recorded(run)
  local last = redis.pcall('XREVRANGE', key('results', run.id), '+', '-', 'COUNT', 1)
  local fields = last[1] and last[1][2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'execution_id' then return fields[i + 1] == run.execution end
  end
  return false
end

-- A run that was recovered from a worker which lives after all: its death does not count.
local function forget_death(run)
  local job = job_key(run.id)
  if redis.call('HGET', job, 'lost_run') == run.execution then
    redis.call('HDEL', job, 'lost_run')
    redis.call('HINCRBY', job, 'worker_deaths', -1)
  end
end

-- Ends a run: deletes the execution, and puts the job into the state of `ending`, a table with the
-- fields of Ending in ending.py. Safe to repeat.
-- Returns the new state, and whether jobs that wait for this one must be enqueued. The state is
-- 'stopped' if the job would have run again, but a stop was requested. It is 'lost', with the job
-- unchanged, if this run must not decide about it: another worker has recovered it, or it was
-- deleted, cancelled or enqueued anew.
local function end_run(run, ending)
  local job = job_key(run.id)
  local found = redis.pcall('HMGET', job, 'status', 'stop_requested', 'failure_ttl',
                            'worker_deaths', 'unknown_since', 'task', 'due_at', 'on_success',
                            'on_failure', 'unknown_why')
  if found.err then  -- another tool has put something else there
    forget_execution(run)
    return 'lost', false
  end
  if not redis.call('ZSCORE', rq .. 'leases', member_of(run)) then
    forget_death(run)
    if not has_recorded(run) then return 'lost', false end
    return found[1] or 'lost', call_if_fit(false, 'ZSCORE', PENDING, run.id) ~= false
  end
  if not ENDED[ending.status] then  -- fails before the run is forgotten if there is no place for the job
    redis.call('LLEN', key('queue', run.origin))
    if ending.status == 'scheduled' then redis.call('ZCARD', key('scheduled', run.origin)) end
  end
  if not forget_execution(run) or found[1] ~= 'started' then return 'lost', false end
  if found[2] == '1' and not ENDED[ending.status] then
    ending = {status = 'stopped', ended_at = ending.moment, moment = ending.moment, kind = 2,
              field = 'exc_string', value = STOPPED}
  end
  if ending.kind then add_result(run, ending) end
  redis.call('HSET', job, 'status', ending.status, 'ended_at', ending.ended_at or '',
             unpack(ending.fields or {}))
  if ending.counter == 'successful_job_count' and (found[4] or found[5]) then
    redis.call('HDEL', job, 'worker_deaths', 'lost_run', 'unknown_since')
  end
  if ending.meta then redis.call('HSET', job, 'meta', ending.meta) end
  count(run, ending)
  pcall(measure, run, ending, found[6], tonumber(found[7]) or ending.enqueued_at)
  if (found[7] or found[10]) and outcome_of(ending) then
    redis.call('HDEL', job, 'due_at', 'unknown_why')
  end
  if not ENDED[ending.status] then
    make_waiting(run, ending)
    return ending.status, false
  end
  local name = FOLLOWED_BY[ending.status]
  local packed = found[8]
  if name == 'on_failure' then packed = found[9] end
  local _, is_followed = pcall(add_follower, run, ending.moment, packed, name)
  local ttl = ttl_of(ending.ttl or found[3])
  if is_followed == true and ttl >= 0 then ttl = math.max(ttl, MIN_FOLLOWED_TTL) end
  return ending.status, make_terminal(run, ending, ttl)
end
