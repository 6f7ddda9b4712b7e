-- Prepended to the scripts that add jobs, after after.lua.
local MAX_STEPS = 10000  -- jobs that the search for a cycle looks at

-- Returns one of the ids for which a job of `parents` waits, itself or through others; or nil, and
-- whether the search was given up.
local function find_cycle(parents, ids)
  local wanted, seen, open, steps = {}, {}, {}, 0
  for _, id in ipairs(ids) do wanted[id] = true end
  for _, parent in ipairs(parents) do open[#open + 1] = parent end
  while #open > 0 do
    local id = table.remove(open)
    if wanted[id] then return id end
    if not seen[id] and redis.call('HGET', job_key(id), 'status') ~= 'finished' then
      for _, parent in ipairs(redis.call('SMEMBERS', dependencies_of(id))) do
        open[#open + 1] = parent
        steps = steps + 1
      end
    end
    seen[id] = true
    if steps > MAX_STEPS then return nil, true end
  end
end

-- Returns why jobs cannot wait for others, or whether they have to.
local function check_parents(request)
  local waits = false
  for _, parent in ipairs(request.parents) do
    local status = redis.call('HGET', job_key(parent), 'status')
    if not status then return 'missing ' .. parent end
    waits = waits or not is_met(status, request.after_failure)
  end
  local known = {}  -- new ids have nobody that waits for them
  for _, id in ipairs(waits and request.ids or {}) do
    if redis.call('EXISTS', job_key(id), dependents_of(id)) > 0 then known[#known + 1] = id end
  end
  if #known > 0 then
    local cycle, is_given_up = find_cycle(request.parents, known)
    if cycle then return 'cycle ' .. cycle end
    if is_given_up then return 'deep ' .. known[1] end
  end
  return nil, waits
end

local function write_job(request, values, n, moment)
  local id, fields = request.ids[n], {}
  redis.call('DEL', job_key(id), dependencies_of(id))
  redis.call('HSET', job_key(id), 'description', request.descriptions[n], 'created_at',
             request.created_at == '' and moment or request.created_at, unpack(request.shared))
  for group, name in ipairs(request.fields) do
    local value = values[(group - 1) * #request.ids + n]
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  if request.delays[n] then
    fields[#fields + 1] = 'retry_intervals'
    fields[#fields + 1] = request.delays[n]
  end
  redis.call('HSET', job_key(id), unpack(fields))
end

-- Adds a job to its queue, or to the registry in which it waits. Returns its state.
local function place_job(request, id, waits, moment)
  local queue = request.queue
  if waits then
    defer(id, queue, request.parents)
    return 'deferred'
  end
  if #request.parents > 0 then redis.call('SADD', dependencies_of(id), unpack(request.parents)) end
  if request.score ~= '' then
    redis.call('ZADD', key('scheduled', queue), request.score, id)
    return 'scheduled'
  end
  redis.call('RPUSH', key('queue', queue), id)
  redis.call('HSET', job_key(id), 'enqueued_at', moment)
  return 'queued'
end

-- Adds jobs: all of them, or none. `request` is an AddRequest of enqueue.py; `values` has for each of
-- its `fields` the value of each job; `moment` is now, in RQ's format. Within `once_for` seconds, unless
-- that is 0, an id that was added as `once_as` is not added again so, whatever has become of its job.
-- Returns for each job 0 if it was added, 1 if it is deferred, 2 if it was added before, or the hash
-- of the job that already waits or runs; instead, nothing added, 'missing', 'cycle' or 'deep', a space
-- and the id of a job in the way.
-- Everything is read before anything is written.
local function add_jobs(request, values, moment, once_for, once_as)
  local statuses, reply, added, known = {}, {}, 0, 0
  for i, id in ipairs(request.ids) do
    statuses[i] = redis.call('HGET', job_key(id), 'status')
    if once_for > 0 and redis.call('GET', key('added', id)) == (once_as or '1') then
      statuses[i] = 'added'
      known = known + 1
    end
  end
  local problem, waits
  -- The parents of jobs that were added before may have expired since.
  if known < #request.ids then problem, waits = check_parents(request) end
  if problem then return problem end
  -- If a key of the queue has another type, the script fails before it writes anything.
  redis.call('LLEN', key('queue', request.queue))
  redis.call('ZCARD', key(waits and 'deferred' or 'scheduled', request.queue))
  for i, id in ipairs(request.ids) do
    local status = statuses[i]
    if status == 'added' then
      reply[i] = 2
    elseif status and not ENDED[status] then
      reply[i] = redis.call('HGETALL', job_key(id))
    else
      -- First what needs memory: a full Redis refuses a script whose first write does.
      redis.call('SADD', rq .. 'queues', key('queue', request.queue))
      if status then
        forget_run(id, redis.call('HGET', job_key(id), 'origin') or request.queue)
      end
      write_job(request, values, i, moment)
      local state = place_job(request, id, waits, moment)
      redis.call('HSET', job_key(id), 'status', state)
      if once_for > 0 then redis.call('SET', key('added', id), once_as or '1', 'EX', once_for) end
      reply[i] = waits and 1 or 0
      added = added + 1
    end
  end
  if added > 0 then
    if request.score == '' and not waits then wake_up(request.queue, added) end
    pcall(count_jobs, 'enqueued', request.queue, request.shared[2], added)
  end
  return reply
end
