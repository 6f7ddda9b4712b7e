-- Ends a run, and claims the next job in the same step.
-- ARGV: prefix; job id, execution, worker and origin of the run; its ending (msgpack; see Ending in
-- ending.py); the job's metadata, or '' if it does not change; the member in `leases` of a run that
-- was claimed ahead and has begun now, or ''; a request (msgpack; see ClaimRequest in lease.py), or
-- '' to claim nothing.
-- Returns {the new state, 1 if dependents must be enqueued, what `claim_next` returns or nil}. See
-- `end_run` for the state.
local run = {id = ARGV[2], execution = ARGV[3], worker = ARGV[4], origin = ARGV[5]}
local ending = cmsgpack.unpack(ARGV[6])
if ARGV[7] ~= '' then ending.meta = ARGV[7] end
local state, has_dependents = end_run(run, ending)
if ARGV[8] ~= '' then call_if_fit(0, 'HDEL', key('execution', ARGV[8]), 'ahead') end
local reply = {state, has_dependents and 1 or 0}
if ARGV[9] ~= '' then reply[3] = claim_next(cmsgpack.unpack(ARGV[9])) end
return reply
