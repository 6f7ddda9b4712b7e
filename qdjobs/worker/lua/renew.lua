-- Renews a lease.
-- ARGV: prefix, job id, execution, lease (s), time (RQ's format), timestamp.
-- Returns 'held', 'stop' if a stop was requested, or 'lost'.
local id, execution, lease, moment, timestamp = unpack(ARGV, 2, 6)
local member = id .. ':' .. execution
local expiry = redis.call('ZSCORE', rq .. 'leases', member)
if not expiry or tonumber(expiry) < clock() then return 'lost' end
redis.call('ZADD', rq .. 'leases', clock() + lease, member)
redis.call('HSET', key('execution', member), 'last_heartbeat', timestamp)
if redis.call('EXISTS', job_key(id)) == 0 then return 'held' end  -- the job was deleted
redis.call('HSET', job_key(id), 'last_heartbeat', moment)
return redis.call('HGET', job_key(id), 'stop_requested') == '1' and 'stop' or 'held'
