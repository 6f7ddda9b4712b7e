-- Requeues jobs whose lease has expired. Fails those under which too many workers have died, stops
-- those for which a stop was requested.
-- ARGV: prefix, limit of deaths, time (RQ's format), encoded errors of a lost attempt and of the
-- last attempt, seconds to keep a failed job.
-- Returns the ids of the requeued jobs, and those of the failed and stopped ones.
local limit, moment, lost, poison, ttl = unpack(ARGV, 2, 6)
local requeued, failed = {}, {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', rq .. 'leases', 0, clock(), 'LIMIT', 0, 100)) do
  local id, execution = string.match(member, '^(.*):(.*)$')
  local job = redis.call('HMGET', job_key(id), 'status', 'origin', 'failure_ttl')
  local run = redis.call('HMGET', key('execution', member), 'worker_name', 'origin')
  local worker, origin = run[1] or '', run[2] or job[2] or ''
  forget_execution(id, execution, origin, worker)
  if job[1] == 'started' then
    local deaths = redis.call('HINCRBY', job_key(id), 'worker_deaths', 1)
    local stopped = redis.call('HGET', job_key(id), 'stop_requested') == '1'
    local dead = stopped or deaths >= tonumber(limit)
    redis.pcall('XADD', key('results', id), 'MAXLEN', 10, '*', 'type', 2, 'worker_name', worker,
                'exc_string', dead and not stopped and poison or lost)
    if dead then
      local keep = tonumber(job[3]) or tonumber(ttl)
      if keep < 0 then keep = tonumber(ttl) end
      local status = stopped and 'stopped' or 'failed'
      redis.call('HSET', job_key(id), 'status', status, 'ended_at', moment)
      redis.call('EXPIRE', job_key(id), keep)
      redis.call('EXPIRE', key('results', id), keep)
      redis.call('ZADD', key('failed', origin), now() + keep, id)
      if redis.call('EXISTS', job_key(id) .. ':dependents') == 1 then
        redis.call('ZADD', rq .. 'pending-dependents', now(), id)
      end
      if status == 'failed' then count_failure(origin) end
      failed[#failed + 1] = id
    else
      requeue(id, origin, moment)
      requeued[#requeued + 1] = id
    end
  end
end
return {requeued, failed}
