// The life of a job in short texts, for those who watch the queue rather than the pen. The server
// names the worker in development only.

/** What the server says of a job → 'queued 12:04:31', 'started after 0.1 s on …', '1 of 2' … */
export function life(job) {
  const { status, progress } = job;
  const [created, started, ended] = [job.created_at, job.started_at, job.ended_at].map(moment);
  const steps = [];
  if (created) steps.push(`queued ${new Date(created).toTimeString().slice(0, 8)}`);
  if (started) steps.push(`started after ${seconds(created, started)}${job.worker ? ` on ${job.worker}` : ''}`);
  if (progress?.total) steps.push(`${progress.done} of ${progress.total}`);
  if (ended) steps.push(started ? `${status} in ${seconds(started, ended)}` : status);
  if (started) steps.push(attempts(status, job.failed_attempts));
  return steps;
}

function moment(text) {
  return text ? Date.parse(text) : null;
}

function seconds(from, to) {
  const passed = Math.max(0, to - from) / 1000;
  return `${passed.toFixed(passed < 10 ? 2 : 0)} s`;
}

/** How often a job has begun: its failed attempts, and the one that runs or has finished. */
function attempts(status, failed) {
  const begun = Math.max(1, ['started', 'finished'].includes(status) ? failed + 1 : failed);
  return begun === 1 ? '1 attempt' : `${begun} attempts`;
}
