-- Claims the next job of the queues.
-- ARGV: prefix, request (msgpack; see ClaimRequest in lease.py), 1 if the reply of an earlier call
-- for this execution was lost.
-- Returns what `claim_next` returns.
local by = cmsgpack.unpack(ARGV[2])
if ARGV[3] == '1' then
  for _, member in ipairs(call_if_fit({}, 'SMEMBERS', key('worker', by.worker .. ':executions'))) do
    local id, claimed = string.match(member, '^(.*):(.*)$')
    if claimed == by.execution and redis.call('ZSCORE', rq .. 'leases', member) then
      redis.call('ZADD', rq .. 'leases', clock() + by.lease, member)
      redis.call('HDEL', key('execution', member), 'ahead')  -- it begins now
      local origin = redis.call('HGET', job_key(id), 'origin')
      return {'job', origin, id, redis.call('HGETALL', job_key(id)), 0}
    end
  end
end
return claim_next(by)
