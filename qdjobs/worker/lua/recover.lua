-- Requeues jobs whose leases have expired. A job for which a stop was requested is stopped.
-- ARGV: prefix, limit of deaths, time (RQ's format), encoded error of a lost attempt, then member
-- in `leases` and score of each lease, as the caller has seen it some time ago: a lease that was
-- renewed since is left alone.
-- Returns the ids of the jobs, their new states, and for each 1 if it has dependents to enqueue, and
-- 1 if its worker has died under it.
local limit, moment, lost = unpack(ARGV, 2, 4)
local ids, states, notes, deaths = {}, {}, {}, {}

-- A lease can be malformed, and what should be a record something else: others are recovered all
-- the same.
local function read(id, field)
  local value = redis.pcall('HGET', job_key(id), field)
  return type(value) == 'string' and value
end

for i = 5, #ARGV, 2 do
  local member, seen = ARGV[i], ARGV[i + 1]
  local expiry = redis.call('ZSCORE', rq .. 'leases', member)
  local id, execution = string.match(member, '^(.*):(.*)$')
  if not id then
    redis.call('ZREM', rq .. 'leases', member)
  elseif expiry and tonumber(expiry) == tonumber(seen) and tonumber(expiry) < clock() then
    local found = call_if_fit({}, 'HMGET', key('execution', member), 'worker_name', 'origin',
                              'ahead', 'stopping')
    local origin = found[2] or read(id, 'origin') or ''
    local run = {id = id, execution = execution, worker = found[1] or '', origin = origin}
    local ending = {status = 'queued', at_front = true, ended_at = '', moment = moment,
                    is_recovery = true, fields = {'enqueued_at', moment}}
    -- A job that was claimed ahead had not begun. Its worker was not killed by it, nor was one that
    -- a deploy has stopped.
    local is_death = found[3] ~= '1' and found[4] ~= '1'
    if found[3] ~= '1' then
      local count = 0
      if is_death then
        count = 1 + (tonumber(read(id, 'worker_deaths') or 0) or 0)
        ending.fields = {'enqueued_at', moment, 'worker_deaths', count, 'lost_run', execution}
      end
      -- The worker that claims the job after its last death fails it, and records why.
      if count < tonumber(limit) then
        ending.kind, ending.field, ending.value = 2, 'exc_string', lost
      end
    end
    local is_done, state, has_dependents = pcall(end_run, run, ending)
    if not is_done then state, has_dependents = 'lost', false end  -- where it belongs is no place
    deaths[#deaths + 1] = is_death and 1 or 0
    ids[#ids + 1] = id
    states[#states + 1] = state
    notes[#notes + 1] = has_dependents and 1 or 0
  end
end
return {ids, states, notes, deaths}
