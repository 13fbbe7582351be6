-- Keeps how many tasks had ended a minute ago, for health. Only joins and turns that renew a lease call it, so all other
-- scripts cost nothing more.

-- @include lib/counts.lua

local sample_counts
do
  local SAMPLED_EVERY = 60000 -- ms between samples

  function sample_counts()
    local last = call('HGET', META, 'sample') or ''
    local at = tonumber(last:match('^%d+')) or 0
    if shard.ms < at + SAMPLED_EVERY and at <= shard.ms then return end
    call('HSET', META, 'sample', string.format('%.0f %.0f %.0f', shard.ms, total[FINISHED], total[FAILED]),
      'sample_before', last)
  end
end
