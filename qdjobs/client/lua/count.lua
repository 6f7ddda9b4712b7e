-- Prepended to the scripts that count jobs. counts.py says which fields the hash `metrics` has.
-- To be called with `pcall`: a key of the wrong type must not keep a job from its next state.
local METRICS = rq .. 'metrics'
local MAX_LABELS = 300  -- pairs of a queue and a task; those that come later are counted as `other`
-- Longer than 64 bytes: Redis would keep a small hash as a list, and search it for each field.
local ABOUT = 'Counts of jobs by queue and task, and how long they waited and ran: docs/metrics.md'

-- Returns the names under which jobs of a queue and a task are counted. Anyone may have written the
-- names of a record.
local function labels_of(queue, task)
  local known, pair = METRICS .. ':labels', queue .. '|' .. task
  if redis.call('SISMEMBER', known, pair) == 0 then
    local is_plain = #pair <= 300 and string.find(pair, '^[%w_.-]+|[%w_.-]+$')
    if not is_plain or redis.call('SCARD', known) >= MAX_LABELS then return 'other', 'other' end
    redis.call('SADD', known, pair)
    redis.call('HSETNX', METRICS, 'about', ABOUT)
  end
  return queue, task
end

-- Counts jobs of one task; `bound` is that of the time for which they ran, if they did. Returns the
-- name under which the task is counted. A field that exists has names that are known: one command.
local function count_jobs(outcome, queue, task, number, bound)
  task, bound = task or 'other', bound or ''
  local field = outcome .. '|' .. queue .. '|' .. task .. '|' .. bound
  if redis.call('HINCRBY', METRICS, field, number) == number then
    redis.call('HDEL', METRICS, field)
    queue, task = labels_of(queue, task)
    field = outcome .. '|' .. queue .. '|' .. task .. '|' .. bound
    redis.call('HINCRBY', METRICS, field, number)
  end
  return task
end
