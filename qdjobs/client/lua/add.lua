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
    if not is_met(status, request.after_failure) then
      redis.call('SCARD', dependents_of(parent))  -- fails here if it has another type
      waits = true
    end
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

-- Puts a job where it waits. Before its record: if the key has another type, the script fails here.
local function place_job(request, id, state)
  if state == 'queued' then
    redis.call('RPUSH', key('queue', request.queue), id)
  elseif state == 'scheduled' then
    redis.call('ZADD', key('scheduled', request.queue), request.score, id)
  else
    redis.call('ZADD', key('deferred', request.queue), '+inf', id)
  end
end

local function write_job(request, values, n, state, moment)
  local id, created_at = request.ids[n], request.created_at
  local fields = {'status', state, 'description', request.descriptions[n], 'created_at',
                  created_at == '' and moment or created_at}
  local function add(name, value)
    if value and value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  for i = 1, #request.shared, 2 do add(request.shared[i], request.shared[i + 1]) end
  for group, name in ipairs(request.fields) do
    add(name, values[(group - 1) * #request.ids + n])
  end
  add('retry_intervals', request.delays[n])
  if state == 'queued' then add('enqueued_at', moment) end
  redis.call('DEL', job_key(id), dependencies_of(id))
  redis.call('HSET', job_key(id), unpack(fields))
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
    local status = redis.call('HGET', job_key(id), 'status')
    if once_for > 0 and redis.call('GET', key('added', id)) == (once_as or '1') then
      status = 'added'
    end
    if status and not ENDED[status] then known = known + 1 end
    statuses[i] = status
  end
  local problem, waits
  -- The parents of jobs that are there may have expired since.
  if known < #request.ids then problem, waits = check_parents(request) end
  if problem then return problem end
  local state = (waits and 'deferred') or (request.score ~= '' and 'scheduled') or 'queued'
  for i, id in ipairs(request.ids) do
    local status = statuses[i]
    if status == 'added' then
      reply[i] = 2
    elseif status and not ENDED[status] then
      reply[i] = redis.call('HGETALL', job_key(id))
    else
      if added == 0 then
        -- First what needs memory: a full Redis refuses a script whose first write does.
        call_if_fit(0, 'SADD', rq .. 'queues', key('queue', request.queue))
      end
      place_job(request, id, state)
      if status then
        forget_run(id, redis.call('HGET', job_key(id), 'origin') or request.queue)
      end
      write_job(request, values, i, state, moment)
      if waits then defer(id, request.queue, request.parents) end
      if once_for > 0 then redis.call('SET', key('added', id), once_as or '1', 'EX', once_for) end
      reply[i] = waits and 1 or 0
      added = added + 1
    end
  end
  if added > 0 then
    if state == 'queued' then wake_up(request.queue, added) end
    pcall(count_jobs, 'enqueued', request.queue, request.shared[2], added)
  end
  return reply
end
