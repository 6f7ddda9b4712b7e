-- Records a finished job, as `record` could, with fewer arguments: nearly every job ends here.
-- ARGV: prefix, job id, execution, worker, origin, time (RQ's format), start and end (timestamps),
-- encoded result or '', seconds to keep the job (negative: for ever).
-- Returns 'done', 'dependents' if other jobs wait for this one, or 'lost' with nothing recorded.
local id, execution, worker, origin, moment, started, ended, result, ttl = unpack(ARGV, 2, 10)
local expiry, time = redis.call('ZSCORE', rq .. 'leases', id .. ':' .. execution), clock()
if not expiry or tonumber(expiry) < time then return 'lost' end
forget_execution(id, execution, origin, worker)
if redis.call('HGET', job_key(id), 'status') ~= 'started' then return 'lost' end
redis.call('HSET', job_key(id), 'status', 'finished', 'ended_at', moment)
local outcome = {'type', 1, 'worker_name', worker, 'execution_id', execution,
                 'execution_started_at', started, 'execution_ended_at', ended}
if result ~= '' then
  outcome[#outcome + 1] = 'return_value'
  outcome[#outcome + 1] = result
end
redis.pcall('XADD', key('results', id), 'MAXLEN', '~', 10, '*', unpack(outcome))
ttl = tonumber(ttl)
if ttl >= 0 then
  redis.call('EXPIRE', job_key(id), ttl)
  redis.call('EXPIRE', key('results', id), ttl)
end
redis.call('ZADD', key('finished', origin), ttl >= 0 and time + ttl or '+inf', id)
redis.call('HINCRBY', key('worker', worker), 'successful_job_count', 1)
redis.call('HINCRBYFLOAT', key('worker', worker), 'total_working_time', ended - started)
if redis.call('EXISTS', job_key(id) .. ':dependents') == 1 then
  if ttl >= 0 then redis.call('EXPIRE', job_key(id) .. ':dependents', ttl) end
  redis.call('ZADD', rq .. 'pending-dependents', now(), id)
  return 'dependents'
end
return 'done'
