-- ARGV: prefix, 1 to send results too, job ids. Returns for each job nil, or the values of
-- FIELDS (STATUS_FIELDS in job_store.py), `data` if the hash does not name the task, and its outcomes, newest first. The
-- value that a run returned is sent only where it is the job's result. Whoever has written another
-- kind of thing under a key of RQ's hides that job only.
local FIELDS = {'status', 'origin', 'created_at', 'started_at', 'ended_at', 'meta', 'task'}

local function outcomes(id, status)
  local reply = {}
  for n, entry in ipairs(redis.pcall('XREVRANGE', key('results', id), '+', '-', 'COUNT', 10)) do
    local fields = {}
    for i = 1, #entry[2], 2 do
      local wanted = n == 1 and status == 'finished' and ARGV[2] == '1'
      if entry[2][i] ~= 'return_value' or wanted then
        fields[#fields + 1] = entry[2][i]
        fields[#fields + 1] = entry[2][i + 1]
      end
    end
    reply[n] = {entry[1], fields}
  end
  return reply
end

local reply = {}
for i = 3, #ARGV do
  local values = redis.pcall('HMGET', job_key(ARGV[i]), unpack(FIELDS))
  reply[i - 2] = false
  if values[1] then
    local data = not values[#FIELDS] and redis.call('HGET', job_key(ARGV[i]), 'data')
    reply[i - 2] = {values, data, outcomes(ARGV[i], values[1])}
  end
end
return reply
