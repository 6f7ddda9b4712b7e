-- Reads what the status of jobs consists of. Changes nothing.
-- ARGV: prefix, 1 to include results, job ids.
-- Returns for each job nil, or {values of FIELDS, `data` if the hash does not name the task, the
-- last outcomes, newest first, ids of jobs that it still waits for}; 'later' if the results before it
-- were so large that it must be read by another call. FIELDS are STATUS_FIELDS in status.py. A return
-- value is included only if it is the job's result. A key of the wrong type affects its own job only.
local FIELDS = {'status', 'origin', 'created_at', 'started_at', 'ended_at', 'meta', 'task',
                'blocked_by', 'worker_name', 'unknown_why'}
local META, TASK = 6, 7  -- their indexes
local MAX_AWAITED, MAX_LISTED = 100, 1000  -- ids for one job, and for all together
local MAX_BYTES = 30000000  -- of return values: Redis serves no other client meanwhile
local LONGEST_META = 4000000  -- bytes; what is longer is left empty
local LONGEST = {return_value = 89000000, exc_string = 2000000}  -- more than can be read, in base64
local listed, bytes = 0, 0

local function outcomes(id, status)
  local reply = {}
  for n, entry in ipairs(call_if_fit({}, 'XREVRANGE', key('results', id), '+', '-', 'COUNT', 10)) do
    local fields = {}
    for i = 1, #entry[2], 2 do
      local wanted = n == 1 and status == 'finished' and ARGV[2] == '1'
      if entry[2][i] ~= 'return_value' or wanted then
        fields[#fields + 1] = entry[2][i]
        local is_long = #entry[2][i + 1] > (LONGEST[entry[2][i]] or 1000)
        fields[#fields + 1] = is_long and '' or entry[2][i + 1]
        if wanted then bytes = bytes + #entry[2][i + 1] end
      end
    end
    reply[n] = {entry[1], fields}
  end
  return reply
end

local function awaited_by(id, status)
  if status ~= 'deferred' or listed >= MAX_LISTED then return {} end
  local is_readable, ids = pcall(unmet_dependencies, id, MAX_AWAITED)
  if not is_readable then return {} end  -- one of the keys has another type
  listed = listed + #ids
  return ids
end

local reply = {}
for i = 3, #ARGV do
  local values = bytes < MAX_BYTES and redis.pcall('HMGET', job_key(ARGV[i]), unpack(FIELDS))
  reply[i - 2] = not values and 'later'
  if values and values[1] then
    if #(values[META] or '') > LONGEST_META then values[META] = '' end
    local data = not values[TASK] and redis.call('HGET', job_key(ARGV[i]), 'data')
    reply[i - 2] = {values, data, outcomes(ARGV[i], values[1]),
                    awaited_by(ARGV[i], values[1])}
  end
end
return reply
