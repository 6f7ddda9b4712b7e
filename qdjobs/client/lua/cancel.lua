-- Cancels a waiting job; requests a running one to be stopped, unless it is to be left.
-- ARGV: prefix, job id, time (RQ's format), seconds to keep a cancelled job, 1 to leave a running
-- job unchanged, the key that the job must be in ('' for any).
-- Returns nil if the job does not exist; 'moved' if it is elsewhere (unchanged); 'limited' if it waits
-- under RQ's rate limit (unchanged);
-- 'started' if it runs: a stop was requested, or it is left; 'canceled' if it is cancelled; else its
-- terminal state (unchanged).
local MAX_SEARCH = 10000
local id, job, moment = ARGV[2], job_key(ARGV[2]), ARGV[3]
local found = redis.call('HMGET', job, 'status', 'origin', 'worker_name', 'rate_limit_key',
                         'task')
local status, origin, worker = found[1], found[2] or '', found[3]
if not status then return nil end
if not is_in(ARGV[6], status, origin) then return 'moved' end
if ENDED[status] then return status end
if status == 'started' and ARGV[5] == '1' then return status end
if status == 'started' then
  redis.call('HSET', job, 'stop_requested', 1)  -- in case the worker misses the command
  local command = cjson.encode({command = 'stop-job', job_id = id})
  redis.call('PUBLISH', key('pubsub', worker or ''), command)
  return status
end
if found[4] then return 'limited' end
-- Only from a queue in which it is found quickly: a worker passes over the id of a cancelled job.
if call_if_fit(MAX_SEARCH + 1, 'LLEN', key('queue', origin)) <= MAX_SEARCH then
  redis.call('LREM', key('queue', origin), 0, id)
end
cancel_waiting(id, origin, found[5], moment, tonumber(ARGV[4]))
if redis.call('EXISTS', dependents_of(id)) == 1 then
  settle_dependents(id, moment, '0', SETTLED_AT_ONCE)  -- a worker settles the others
end
return 'canceled'
