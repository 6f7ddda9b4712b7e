-- Enqueues the jobs of due ticks, each once, and notes which periodic jobs are served.
-- ARGV: prefix; time (RQ's format); entries (msgpack), each with the fields of Tick in state.py; for
-- each due tick its AddRequest (msgpack) and the values of that.
-- Returns the time, in microseconds, and for each entry what has become of its tick: 'added',
-- 'skipped', 'done' (that was so before, or it was due before its rule was known), 'elsewhen' (it is
-- not the latest tick now), '' if it has none, or 'error' and why.
local KEPT = 100 * 86400  -- seconds that an entry is remembered which nobody serves
local TOLERANCE = 300  -- seconds; what lies further ahead was written under a wrong clock
local DEPLOY = 600  -- seconds in which workers of two versions may serve an entry
local MAX_RULES = 20  -- of an entry: during a deploy there are two
local moment = ARGV[2]
local time = redis.call('TIME')
local clock = time[1] + time[2] / 1000000

-- Returns since when a rule is known, and when it was last served.
local function times_of(state, rule)
  local value = redis.call('HGET', state, 'rule:' .. rule)
  local since, served = string.match(value or '', '^(%S+) ?(%S*)$')
  return tonumber(since), tonumber(served)
end

-- Returns whether a rule comes back which another has replaced for longer than a deploy takes.
local function was_replaced(state, rule, served)
  local last, at = unpack(redis.call('HMGET', state, 'rule', 'served_at'))
  if not served or not last or last == rule then return false end
  local began = times_of(state, last) or clock
  local ended = math.min(tonumber(at) or 0, clock)
  return ended - math.max(served, began) > DEPLOY
end

-- Notes that a rule is served. Returns since when it is known: the ticks before are not missed.
local function serve(state, rule)
  local since, served = times_of(state, rule)
  if not since or since > clock + TOLERANCE or was_replaced(state, rule, served) then
    since = clock
  end
  if redis.call('HLEN', state) > MAX_RULES then
    for _, other in ipairs(redis.call('HKEYS', state)) do
      if string.sub(other, 1, 5) == 'rule:' then redis.call('HDEL', state, other) end
    end
  end
  local now = string.format('%.6f', clock)
  redis.call(
    'HSET', state, 'served_at', now, 'rule', rule,
    'rule:' .. rule, string.format('%.6f ', since) .. now
  )
  redis.call('EXPIRE', state, KEPT)
  return since
end

local function has_ended(id)
  local status = redis.call('HGET', job_key(id), 'status')
  return not status or ENDED[status]
end

local function run(entry, first)
  local state = key('schedule', entry.name)
  local since = serve(state, entry.rule)
  if entry.tick == 0 then return '' end
  if clock < entry.tick or clock >= entry.following then return 'elsewhen' end
  local found = redis.call('HMGET', state, 'tick', 'job')
  local last = tonumber(found[1])
  if last and last > clock + TOLERANCE then last = nil end
  if entry.tick <= since or (last and entry.tick <= last) then return 'done' end
  local outcome = 'done'
  if entry.overlap == 'skip' and found[2] and not has_ended(found[2]) then
    redis.call('HINCRBY', state, 'skipped', 1)
    outcome = 'skipped'
  elseif redis.call('EXISTS', job_key(entry.job)) == 0 then
    local values = {unpack(ARGV, first + 1, first + entry.sent - 1)}
    add_jobs(cmsgpack.unpack(ARGV[first]), values, moment, 0)
    redis.call('HSET', state, 'job', entry.job)
    outcome = 'added'
  end
  redis.call('HSET', state, 'tick', entry.tick)
  return outcome
end

local outcomes, first = {}, 4
for i, entry in ipairs(cmsgpack.unpack(ARGV[3])) do
  -- A key of another type must not keep the other entries from their ticks.
  local is_done, outcome = pcall(run, entry, first)
  if not is_done then
    outcome = 'error ' .. (type(outcome) == 'table' and outcome.err or tostring(outcome))
  end
  outcomes[i] = outcome
  first = first + entry.sent
end
return {time[1] * 1000000 + time[2], outcomes}
