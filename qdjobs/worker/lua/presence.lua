-- Writes the record of a living worker.
-- ARGV: prefix, worker, seconds to keep it, number of its queues, the queues, fields and values.
local record, ttl, queues = key('worker', ARGV[2]), ARGV[3], tonumber(ARGV[4])
redis.call('HSET', record, unpack(ARGV, 5 + queues))
redis.call('EXPIRE', record, ttl)
call_if_fit(0, 'SADD', rq .. 'workers', record)
for i = 5, 4 + queues do call_if_fit(0, 'SADD', rq .. 'workers:' .. ARGV[i], record) end
