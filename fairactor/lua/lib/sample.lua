-- Keeps what health has to know of the last minutes: how many tasks had ended by then, and how long a task usually runs.
-- Only joins and turns that renew a lease call it, so all others cost nothing.

-- @include lib/counts.lua

local sample_counts
do
  local SAMPLED_EVERY = 60000 -- ms between samples
  local LATEST_SHARE = 0.2 -- of the latest runs in the average
  local SAMPLE_FORMAT = '%.0f %.0f %.0f'

  -- Given is how many tasks this script settles that have run, and for how many seconds together.
  function sample_counts(runs, seconds)
    local known = call('HMGET', META, 'sample', 'usual')
    local at = tonumber((known[1] or ''):match('^%d+')) or 0
    if shard.ms >= at + SAMPLED_EVERY or at > shard.ms then
      call('HSET', META, 'sample', string.format(SAMPLE_FORMAT, shard.ms, total[FINISHED], total[FAILED]), 'sample_before',
        known[1] or '')
    end
    if runs > 0 then
      local usual = tonumber(known[2] or '') or seconds / runs
      call('HSET', META, 'usual', exact(usual + LATEST_SHARE * (seconds / runs - usual)))
    end
  end
end
