-- Does what earlier scripts have left to do, closes gates that nobody has opened in time, and hands out messages for other
-- shards: each for a while, then others get it, until it is acknowledged.
--
-- KEYS  1 META of the shard
-- ARGV  1 the most messages, 2 ms for which they are this caller's
-- Reply {ms until there is something to do, as what others carry, or -1 where nobody has used the plugin yet, message, ...}
--
-- Safe to repeat: what is told twice changes nothing.

-- @include lib/transition.lua

if not (shard.plugins or ''):find(',' .. SELF .. ',', 1, true) then return { -1 } end
local LONG = 3600000 -- ms: nothing is known to come
local limit, carry_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = integer(shard.ms)
local mine = share(SELF)
local messages = call('ZRANGEBYSCORE', OWN .. 'outbox', '-inf', now, 'LIMIT', 0, limit)
local field = call('HRANDFIELD', OWN .. 'rest')
local run = call('ZRANGEBYSCORE', OWN .. 'gates', '-inf', now, 'LIMIT', 0, 1)[1]
if #messages == 0 and not field and not run then
  local next_at = math.huge
  for _, key in ipairs({ OWN .. 'outbox', OWN .. 'gates' }) do
    next_at = math.min(next_at, tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) or math.huge)
  end
  return { math.min(next_at - shard.ms, LONG) }
end
mine.rest = field and { { field, call('HGET', OWN .. 'rest', field) } }
mine.gates = run and { { run, call('GET', OWN .. 'gate:' .. run) or 'C' } } -- one that broke off ends as it had
local dues = {}
for _, message in ipairs(messages) do dues[#dues + 1], dues[#dues + 2] = integer(shard.ms + carry_ms), message end
later[#later + 1] = function() write_all('ZADD', OWN .. 'outbox', dues) end
carry_out()
return { (field or run or #messages == limit) and 0 or carry_ms, unpack(messages) }
