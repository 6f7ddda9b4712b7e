-- Removes entries whose time has passed from the registries of finished and of failed jobs.
-- ARGV: prefix, number of entries to remove at most, queues…
-- Returns 1 if there may be more.
local left, time = tonumber(ARGV[2]), now()
for i = 3, #ARGV do
  for _, registry in ipairs({'finished', 'failed'}) do
    local entries = key(registry, ARGV[i])
    local expired = math.min(left, call_if_fit(0, 'ZCOUNT', entries, '-inf', time))
    if expired > 0 then redis.call('ZREMRANGEBYRANK', entries, 0, expired - 1) end
    left = left - expired
    if left == 0 then return 1 end
  end
end
return 0
