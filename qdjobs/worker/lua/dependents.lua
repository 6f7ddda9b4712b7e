-- Queues or cancels jobs that wait for a job which has ended. Safe to repeat.
-- ARGV: prefix, id of the ended job, time (RQ's format), cursor (0 at first), number of jobs to
-- look at.
-- Returns {next cursor, ids under RQ's rate limit, which the caller must enqueue}; the cursor is 0
-- after the last.
return {settle_dependents(ARGV[2], ARGV[3], ARGV[4], ARGV[5])}
