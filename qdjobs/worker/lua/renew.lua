-- Renews the leases of a worker's runs. A lease whose time has passed is renewed too while nobody
-- has recovered the job.
-- ARGV: prefix, lease (s), time (RQ's format), timestamp, 1 if the worker is stopping, then job id
-- and execution of each run.
-- Returns for each run 'held', 'stop' if a stop was requested, or 'lost'.
local lease, moment, timestamp, is_stopping = unpack(ARGV, 2, 5)
local expiry, reply = clock() + lease, {}
for i = 6, #ARGV, 2 do
  local id, execution = ARGV[i], ARGV[i + 1]
  local member = id .. ':' .. execution
  local state = 'lost'
  if redis.call('ZADD', rq .. 'leases', 'XX', 'CH', expiry, member) == 1
     or redis.call('ZSCORE', rq .. 'leases', member) then
    call_if_fit(0, 'HSET', key('execution', member), 'last_heartbeat', timestamp, 'stopping',
                is_stopping)
    state = 'held'
    if redis.call('TYPE', job_key(id)).ok == 'hash' then  -- else the job was deleted
      redis.call('HSET', job_key(id), 'last_heartbeat', moment)
      if redis.call('HGET', job_key(id), 'stop_requested') == '1' then state = 'stop' end
    end
  end
  reply[#reply + 1] = state
end
return reply
