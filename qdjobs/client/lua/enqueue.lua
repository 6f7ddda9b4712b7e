-- Enqueues jobs, schedules them, or defers them until others have ended: all of them, or none.
-- ARGV: prefix; time (RQ's format); seconds for which an id is added only once, or 0, and as what; an
-- AddRequest (msgpack, which is faster to send than thousands of arguments); the values of its fields.
-- Returns what `add_jobs` returns.
local values = {}
for i = 6, #ARGV do values[i - 5] = ARGV[i] end
return add_jobs(cmsgpack.unpack(ARGV[5]), values, ARGV[2], tonumber(ARGV[3]), ARGV[4])
